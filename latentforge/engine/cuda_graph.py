"""The whole training step as one CUDA graph: gather, forward, backward, gate, update.

A small model's step is a hundred kernels of a few microseconds each, and launching them one by one
takes longer than they do. Ours: what may be captured, the proof that it is the same, the replay.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentforge.contracts import Step, Terms
from latentforge.data.streamed import StreamedImages
from latentforge.engine.step import take_step

if TYPE_CHECKING:
    from latentforge.engine.step_runner import Stepper

LARGEST = 16_000_000
"""Parameters of a model that is captured unasked; a larger one keeps the device busy anyway."""
TESTED = 3  # steps that are made both ways
CLOSE = 1e-4
"""How far the two ways may be apart, as a share of how far the steps went. With cuDNN's
deterministic kernels the built-in models' are not apart at all."""


class NotCapturable(Exception):
    """Why the steps of a training are launched one by one, in words."""


class Replayed(Step):
    """The step of a graph, which is captured once and stands for all: its number is not to be had.

    Raises NotCapturable where a loss reads it.
    """

    first = False

    def __getattribute__(self, name: str) -> object:
        if name in ("index", "epoch"):
            raise NotCapturable(f"the loss reads step.{name}, which changes with each step")
        return super().__getattribute__(name)


def check_capturable(stepper: Stepper) -> None:
    """NotCapturable with the reason where the step cannot be one graph, as far as can be told."""
    trainee, optimizer, wanted = stepper.trainee, stepper.optimizer, stepper.config.cuda_graph
    if stepper.device.type != "cuda":
        raise NotCapturable(f"there are no CUDA graphs on {stepper.device.type}")
    if wanted == "off":
        raise NotCapturable("train.cuda_graph is off")
    if isinstance(stepper.images, StreamedImages):
        raise NotCapturable("the images are streamed, and a graph gathers them on the device")
    if stepper.shared:
        raise NotCapturable("several processes take each step together")
    if stepper.config.compile:
        raise NotCapturable("train.compile is on")
    if not all(group.get("fused") for group in optimizer.param_groups):
        name = stepper.config.optimizer
        raise NotCapturable(f"optimizer {name!r} has no fused kernel, which skips a bad step")
    size = sum(parameter.numel() for parameter in trainee.parameters())
    if wanted == "auto" and size > LARGEST:
        raise NotCapturable(f"{size:,} parameters keep the device busy (train.cuda_graph=on)")
    hooked = [
        name
        for name, module in trainee.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    ]
    if hooked:
        raise NotCapturable(f"{hooked[0] or 'the model'} has a hook, which a replay would not call")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise NotCapturable("the optimizer has a hook, which a replay would not call")


class CapturedStep:
    """The step of `stepper` on full batches, captured after its first steps; see `build`."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.batch_size, self.length = stepper.batch_size, stepper.epoch_length
        device = stepper.device
        # Where the step is in its epoch, on the device: the graph counts by itself.
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.table = torch.zeros(self.length, self.batch_size, dtype=torch.int64, device=device)
        self.graph = torch.cuda.CUDAGraph()
        self.next = -1  # the step that the graph would make
        self.rows: dict[str, Tensor] = {}  # of each term: its value in each step of the epoch
        self.vectors: dict[str, Tensor] = {}  # of each per_dim, alike
        self.weights: dict[str, float] = {}
        self.grads: list[Tensor | None] = []

    @classmethod
    def build(cls, stepper: Stepper, done: int) -> CapturedStep:
        """Capture the step, and show that it does what the steps one by one do.

        From where the training stands, `TESTED` steps are made one by one and again by replays;
        then all is put back. Raises NotCapturable where they end apart.
        """
        check_capturable(stepper)
        kept = [(tensor, tensor.clone()) for tensor in tensors_of(stepper)]
        parameters = [p.detach() for p in stepper.trainee.parameters()]
        start = [p.clone() for p in parameters]
        steps = range(done, min(done + TESTED, done - done % stepper.epoch_length + stepper.full))
        try:
            side = torch.cuda.Stream(stepper.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(stepper.device))
            with torch.cuda.stream(side):  # as torch asks for before a capture
                for step in steps:
                    terms = stepper.step_by_step(step)
            torch.cuda.current_stream(stepper.device).wait_stream(side)
            expected = [p.clone() for p in parameters]
            put_back(kept)
            captured = cls(stepper)
            captured._make_room(terms)
            captured._capture(side)
            captured.start_epoch()
            for step in steps:
                captured.replay(step)
            apart = distance(parameters, expected) / max(distance(expected, start), 1e-30)
        finally:
            torch.cuda.synchronize(stepper.device)
            put_back(kept)
        if not apart <= CLOSE:  # NaN too
            raise NotCapturable(
                f"{len(steps)} captured steps end {apart:.2g} of their way from the same steps "
                "made one by one: the model or its loss keeps something between steps, or has "
                "kernels that add in no fixed order"
            )
        captured.next = -1
        return captured

    def start_epoch(self) -> None:
        """Take over the order of the epoch that the stepper has laid out."""
        full = self.stepper.order[: self.stepper.full]
        if full:
            torch.stack(full, out=self.table[: len(full)])
        self.next = -1

    def _make_room(self, terms: Terms) -> None:
        """For what the steps of an epoch say; not in the graph, which would clear it each time."""
        for kept, given in ((self.rows, terms.values), (self.vectors, terms.per_dim)):
            for name, value in given.items():
                kept[name] = value.new_zeros(self.length, *value.shape).detach()

    def _capture(self, stream: torch.cuda.Stream) -> None:
        """On the stream of the steps before, on which autograd puts what adds up gradients."""
        stepper = self.stepper
        fields = stepper.total_steps, len(stepper.images), stepper.epoch_length
        step = Replayed(-1, *fields)
        with (
            sound_generator(stepper.device),
            uncollected(),
            torch.cuda.graph(self.graph, stream=stream),
        ):
            index = self.table.index_select(0, self.place).squeeze(0)
            batch = stepper.images.batch(index)
            terms = take_step(
                stepper.trainee,
                stepper.optimizer,
                batch,
                step,
                gate=stepper.gate,
                parts=stepper.parts,
                clip=stepper.clip,
            )
            for kept, given in ((self.rows, terms.values), (self.vectors, terms.per_dim)):
                for name, value in given.items():
                    kept[name].index_copy_(0, self.place, value.detach()[None])
            self.place.add_(1)
        self.weights = dict(terms.weights)
        self.grads = [p.grad for p in stepper.trainee.parameters()]

    def replay(self, done: int) -> Terms:
        """Make the step after `done` others. The terms are good until the next epoch."""
        place = done % self.length
        if done != self.next:  # after a step of another kind, too
            self.place.fill_(place)
            parameters = self.stepper.trainee.parameters()
            for parameter, grad in zip(parameters, self.grads, strict=True):
                parameter.grad = grad
        self.stepper.noise.reseed(done)
        self.graph.replay()
        self.next = done + 1
        values = {name: row[place] for name, row in self.rows.items()}
        per_dim = {name: row[place] for name, row in self.vectors.items()}
        return Terms(values, self.weights, per_dim)


@contextmanager
def uncollected() -> Iterator[None]:
    """A graph of another training that the garbage collector finds during a capture would be
    destroyed there, which is not allowed and ends the capture."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def sound_generator(device: torch.device) -> Iterator[None]:
    """A capture that fails leaves the device's generator as if it still went on, and every later
    draw would raise: it then gets a state of its own again."""
    try:
        yield
    except BaseException:
        own = torch.cuda.default_generators[device.index or 0]
        own.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
        raise


def tensors_of(stepper: Stepper) -> list[Tensor]:
    """All that a step writes: weights, buffers, the optimizer's state, the gate's flag."""
    state = [
        value
        for values in stepper.optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor)
    ]
    modules = [*stepper.trainee.parameters(), *stepper.trainee.buffers()]
    return [tensor.detach() for tensor in (*modules, *state, stepper.gate.flag)]


def put_back(kept: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in kept:
        tensor.copy_(value)


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    """The Euclidean distance of two lists of tensors as one vector."""
    squares = [(a - b).double().square().sum() for a, b in zip(some, others, strict=True)]
    return float(torch.stack(squares).sum().sqrt())
