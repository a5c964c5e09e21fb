"""The optimizer steps of a training: which images, which noise, which rate, and the step itself.

A step is a pure function of (weights, optimizer state, seed, step): nothing else is kept here.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from latentforge.config import RunConfig
from latentforge.contracts import Batch, Step, Terms
from latentforge.data import Images
from latentforge.engine.averaging import Average
from latentforge.engine.finite import largest_gradient
from latentforge.engine.schedule import rate
from latentforge.engine.step import Gate, Trainee, build_optimizer, gradients, take_step
from latentforge.guard import blame
from latentforge.seeding import Noise, permutation

if TYPE_CHECKING:
    from latentforge.engine.shared_step import SharedStep

SAVE_MEMORY = "a smaller --batch-size, or --set train.accumulate=4 for the same in parts"


class Stepper:
    """Trains `trainee` on `images`, both on `device`, one step at a time."""

    def __init__(
        self,
        trainee: Trainee,
        images: Images,
        config: RunConfig,
        device: torch.device,
        shared: SharedStep | None = None,
    ) -> None:
        train = config.train
        self.trainee, self.images, self.device = trainee, images, device
        self.seed, self.batch_size = train.seed, train.batch_size
        self.parts, self.clip = train.accumulate, train.clip_grad_norm
        self.epoch_length = math.ceil(len(images) / train.batch_size)
        self.total_steps = train.epochs * self.epoch_length
        self.optimizer = build_optimizer(trainee, train)
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule = train.schedule if train.schedule.epochs else None  # a constant has none
        self.average = Average(trainee, train.ema) if train.ema else None
        self.noise, self.gate = Noise(device, "train", train.seed), Gate(device)
        self.shared = shared  # where several processes take each step together
        self.entries = config.model.entry, config.loss.entry  # to blame
        self.order: tuple[torch.Tensor, ...] = ()

    def start_epoch(self, epoch: int) -> None:
        """Lay out the batches of an epoch, counted from 0."""
        order = permutation(len(self.images), self.seed, epoch)
        self.order = torch.split(order.to(self.device), self.batch_size)

    def take(self, done: int) -> tuple[Terms, int]:
        """The step after `done` others: its terms, still on the device, and how many images."""
        batch = self._batch(done)
        try:
            if self.schedule:
                self._set_rate(rate(self.schedule, done, self.epoch_length))
            terms = take_step(
                self.trainee,
                self.optimizer,
                batch,
                self._at(done),
                gate=self.gate,
                parts=self.parts,
                clip=self.clip,
                backward=self.shared.gradients if self.shared else None,
            )
            if self.average:
                self.average.update(done)
        except Exception:  # `with blame` around every step would cost 2 µs each
            with blame(f"step {done + 1}", *self.entries, save_memory=SAVE_MEMORY):
                raise
        return terms, len(self._index(done))

    def post_mortem(self, number: int) -> list[str]:
        """The gradients of a step, counted from 1, that did not move the weights, made again."""
        done = number - 1
        with suppress(Exception):  # the first error is the one to tell
            # together only where all find out at the same step
            again = self.shared.gradients if self.shared and self.gate.wait else gradients
            again(self.trainee, self.optimizer, self._batch(done), self._at(done), self.parts)
        return largest_gradient(self.trainee)

    def end(self) -> Step:
        """The end of the training: during a warm-up early weights are not to be the best."""
        return self._at(self.total_steps)

    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _batch(self, done: int) -> Batch:
        """The images of a step; what is drawn from here on is the step's own noise."""
        if self.shared:
            return self.shared.batch(self.images, self._index(done), done, self.parts)
        self.noise.reseed(done)
        return self.images.batch(self._index(done))

    def _index(self, done: int) -> torch.Tensor:
        return self.order[done % self.epoch_length]

    def _at(self, done: int) -> Step:
        return Step(done, self.total_steps, len(self.images), self.epoch_length)

    def _set_rate(self, factor: float) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor
