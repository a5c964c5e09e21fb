"""The optimizer steps of a training: which images, which noise, which rate, and the step itself.

A step is a pure function of (weights, optimizer state, seed, step): nothing else is kept here.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from latentforge.config.schema import RunConfig
from latentforge.contracts import Batch, Step, Terms
from latentforge.data.images import ImageSplit
from latentforge.data.prefetch import lost_worker
from latentforge.data.streamed import StreamedImages
from latentforge.engine.cuda_graph import CapturedStep, NotCapturable, Replayed, check_capturable
from latentforge.engine.ema import Average
from latentforge.engine.fused_adam import quick_update
from latentforge.engine.lr_schedule import rate
from latentforge.engine.memory_format import by_pixel
from latentforge.engine.step import (
    Gate,
    Later,
    Trainee,
    build_optimizer,
    gradients,
    largest_gradient,
    take_step,
)
from latentforge.errors import RunFailed, one_line
from latentforge.plugins.attribution import blame
from latentforge.seeding import Noise, permutation

if TYPE_CHECKING:
    from latentforge.engine.data_parallel import SharedStep

log = logging.getLogger("latentforge")
SAVE_MEMORY = "a smaller --batch-size, or --set train.accumulate=4 for the same in parts"
WARM = 2  # steps before the capture: the optimizer's state is there, and libraries have loaded


class Stepper:
    """Trains `trainee` on `images`, both on `device`, one step at a time.

    `graph` says in words whether the steps are replayed as a CUDA graph, and if not, why.
    """

    def __init__(
        self,
        trainee: Trainee,
        images: ImageSplit,
        config: RunConfig,
        device: torch.device,
        shared: SharedStep | None = None,
    ) -> None:
        train = self.config = config.train
        self.trainee, self.images, self.device = trainee, images, device
        self.seed, self.batch_size = train.seed, train.batch_size
        self.parts, self.clip = train.accumulate, train.clip_grad_norm
        self.epoch_length = math.ceil(len(images) / train.batch_size)
        self.full = len(images) // train.batch_size  # batches of an epoch that are whole
        self.total_steps = train.epochs * self.epoch_length
        self.optimizer = build_optimizer(trainee, train)
        self.update = None if config.callbacks else quick_update(self.optimizer)
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule = train.schedule if train.schedule.epochs else None  # a constant has none
        self.average = Average(trainee, train.ema) if train.ema else None
        self.noise, self.gate = Noise(device, "train", train.seed), Gate(device)
        self.shared = shared  # where several processes take each step together
        self.entries = config.model.entry, config.loss.entry  # to blame
        self.order: tuple[torch.Tensor, ...] = ()
        self.made = 0  # steps, by this process
        self.captured: CapturedStep | None = None
        self.graph = ""
        self._rates: list[torch.Tensor] = []  # on the device, where a graph reads them
        self.compiled: bool | None = None  # whether the forward pass is, once that is known
        try:
            check_capturable(self)
        except NotCapturable as reason:
            self._go_without(reason)
        else:
            for group in self.optimizer.param_groups if self.schedule else ():
                self._rates.append(torch.tensor(group["lr"], device=device))

    def start_epoch(self, epoch: int) -> None:
        """Lay out the batches of an epoch, counted from 0."""
        order = permutation(len(self.images), self.seed, epoch)
        if isinstance(self.images, StreamedImages):  # which reads on the CPU
            self.order = torch.split(order, self.batch_size)
            self.images.expect([self._read(index) for index in self.order])
        else:
            self.order = torch.split(order.to(self.device), self.batch_size)
        if self.captured:
            self.captured.start_epoch()

    def take(self, done: int) -> tuple[Terms, int]:
        """The step after `done` others: its terms, still on the device, and how many images."""
        images = len(self._index(done))
        try:
            if self.config.compile and self.compiled is None:
                self._compile(done)
            self._set_rate(done)
            whole = images == self.batch_size
            if not self.graph and whole and self.made >= WARM:
                self._try_capture(done)
            if self.captured and whole:
                terms = self.captured.replay(done)
            else:
                terms = self.step_by_step(done)
            if self.average:
                self.average.update(done)
        except Exception as error:  # `with blame` around every step would cost 2 µs each
            if lost := lost_worker(error):  # torch raises it wherever the step is
                raise lost from error
            with blame(f"step {done + 1}", *self.entries, save_memory=SAVE_MEMORY):
                raise
        self.made += 1
        return terms, images

    def close(self) -> None:
        """Read no more images ahead."""
        if isinstance(self.images, StreamedImages):
            self.images.close()

    def step_by_step(self, done: int) -> Terms:
        """The step, its kernels launched one by one."""
        return take_step(
            self.trainee,
            self.optimizer,
            self._batch(done),
            self._at(done),
            gate=self.gate,
            parts=self.parts,
            clip=self.clip,
            backward=self.shared.gradients if self.shared else None,
            update=self.update,
        )

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

    def ways(self) -> dict[str, Any]:
        """How the steps are made, for run.json."""
        return {
            "precision": self.config.precision,
            "channels_last": by_pixel(self.trainee),
            "compile": self.config.compile and self.compiled is not False,
            "fused": all(bool(group.get("fused")) for group in self.optimizer.param_groups),
            "cuda_graph": self.graph,
            "images": self._residence(),
        }

    def told(self) -> list[str]:
        """The same for people: what is not as in a plain float32 step."""
        ways = self.ways()
        words = ["bfloat16 autocast"] if ways["precision"] == "bf16" else []
        words += [name for name in ("channels_last", "compile") if ways[name]]
        if self.device.type == "cuda":
            words.append(self.graph or "a CUDA graph after the first ones")
        if isinstance(self.images, StreamedImages):
            words.append(f"images {ways['images']}")
        return words

    def _residence(self) -> str:
        if not isinstance(self.images, StreamedImages):
            return "in memory"
        return f"streamed ({self.images.why}; data.workers={self.images.workers})"

    def _batch(self, done: int) -> Batch:
        """The images of a step; what is drawn from here on is the step's own noise."""
        if self.shared:
            return self.shared.batch(self.images, self._index(done), done, self.parts)
        self.noise.reseed(done)
        return self.images.batch(self._index(done))

    def _read(self, index: torch.Tensor) -> torch.Tensor:
        """What this process reads of a batch."""
        if self.shared and not self.images.dynamic:
            return self.shared.own(index, self.parts)
        return index

    def _index(self, done: int) -> torch.Tensor:
        return self.order[done % self.epoch_length]

    def _at(self, done: int) -> Step:
        kind = Later if self.config.compile and done else Step
        return kind(done, self.total_steps, len(self.images), self.epoch_length)

    def _compile(self, done: int) -> None:
        """Compile the forward pass, unless the loss follows the step's number: torch would compile
        it anew for each, and give up after a few."""
        probe = Replayed(done, self.total_steps, len(self.images), self.epoch_length)
        try:
            self.trainee.eval()  # in which nothing is kept of what was seen
            with torch.no_grad():
                self.trainee.forward(self._batch(done), probe)
        except NotCapturable as reason:
            self.compiled = False
            log.warning("train.compile is left out: %s", reason)
        else:
            self.compiled = True
            self.trainee.compile(dynamic=False)
        finally:
            self.trainee.train()

    def _set_rate(self, done: int) -> None:
        if not self.schedule:
            return
        factor = rate(self.schedule, done, self.epoch_length)
        for i, (group, lr) in enumerate(
            zip(self.optimizer.param_groups, self.base_lrs, strict=True)
        ):
            group["lr"] = self._rates[i].fill_(lr * factor) if self._rates else lr * factor

    def _try_capture(self, done: int) -> None:
        for group in self.optimizer.param_groups:
            if "capturable" in group:  # what a checkpoint had may say otherwise
                group["capturable"] = True
        try:
            self.captured = CapturedStep.build(self, done)
            self.captured.start_epoch()
            self.graph = "the whole step, found equal to steps one by one"
        except NotCapturable as reason:
            self._go_without(reason)
        except Exception as error:  # torch's own words on what cannot be captured
            self._go_without(NotCapturable(one_line(error)))

    def _go_without(self, reason: NotCapturable) -> None:
        if self.config.cuda_graph == "on":
            raise RunFailed(
                f"the step cannot be captured as a CUDA graph: {reason}",
                remedy="--set train.cuda_graph=auto",
            )
        self.graph = f"no: {reason}"
