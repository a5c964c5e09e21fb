"""Captures the training step as a CUDA graph if possible, verifies the graph and replays it.

The hundred kernels of a step of a small model take a few µs each; launching them takes longer.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from latentforge.config.schema import RunConfig
from latentforge.contracts import Terms
from latentforge.data.images import ImageSplit
from latentforge.data.streamed import StreamedImages
from latentforge.engine.compiled import NumberlessStep, NumberRead
from latentforge.engine.lr_schedule import lr_factor
from latentforge.engine.step import StepRunner, Trainee, train_step
from latentforge.errors import one_line

MAX_PARAMETERS = 16_000_000
"""The largest number of parameters of a model for which "auto" captures the step. A larger model
keeps the device busy without a graph."""
WARMUP_STEPS = 2  # steps before the capture; they create the optimizer's state and load libraries
TESTED_STEPS = 3  # steps that run both eagerly and as replays, to compare them
TOLERANCE = 1e-4
"""The largest accepted distance between the weights after eager steps and those after replays, as a
fraction of the distance that the weights moved. With cuDNN's deterministic kernels, the distance is
0 for the built-in models."""


class NotCapturable(Exception):
    """The step cannot be captured and runs eagerly; the message is the reason."""


class CudaGraphStep(StepRunner):
    """Captures the step as a CUDA graph after the first steps, if possible, and then replays it for
    full batches. Without a graph, it runs the same steps as StepRunner."""

    def __init__(
        self, trainee: Trainee, images: ImageSplit, config: RunConfig, device: torch.device
    ) -> None:
        super().__init__(trainee, images, config, device)
        self.graph = ""
        self.steps_run = 0  # steps run by this process
        self.captured: CapturedStep | None = None
        self._rates: list[Tensor] = []  # learning rates on the device, where a graph reads them
        try:
            check_capturable(self)
        except NotCapturable as reason:
            self.without_graph(str(reason))
        else:
            for group in self.optimizer.param_groups if self.schedule else ():
                self._rates.append(torch.tensor(group["lr"], device=device))

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        if self.captured:
            self.captured.start_epoch()

    def include_added_groups(self) -> bool:
        if not super().include_added_groups():
            return False
        if self._rates:
            added = self.base_lrs[len(self._rates) :]
            self._rates += [torch.tensor(lr, device=self.device) for lr in added]
        if self.captured:  # capture again, after steps that create the state of the new groups
            self.captured, self.graph = None, ""
        self.steps_run = 0
        return True

    def run(self, done: int) -> Terms:
        if self.callbacks:
            self.include_added_groups()
        is_full = len(self.index(done)) == self.batch_size
        if not self.graph and is_full and self.steps_run >= WARMUP_STEPS:
            self.call(done, self._capture, done)
        self.steps_run += 1
        if not (self.captured and is_full):
            return super().run(done)
        if self.schedule:
            self.set_learning_rate(done)
        terms = self.call(done, self.captured.replay, done)
        self.record(terms, self.batch_size)
        if self.ema:
            self.ema.update(done)
        return terms

    def set_learning_rate(self, done: int) -> None:
        if not self._rates or not self.schedule:
            super().set_learning_rate(done)
            return
        factor = lr_factor(self.schedule, done, self.epoch_length)
        groups = self.optimizer.param_groups
        for group, lr, rate in zip(groups, self.base_lrs, self._rates, strict=True):
            group["lr"] = rate.fill_(lr * factor)

    def _capture(self, done: int) -> None:
        for group in self.optimizer.param_groups:
            if "capturable" in group:  # a restored checkpoint may have changed it
                group["capturable"] = True
        try:
            if self.schedule:
                self.set_learning_rate(done)
            self.captured = CapturedStep.build(self, done)
            self.graph = "the whole step, verified against eager steps"
        except NotCapturable as reason:
            self.without_graph(str(reason))
        except Exception as error:  # torch's message about what cannot be captured
            self.without_graph(one_line(error))


def check_capturable(run: StepRunner) -> None:
    """Raise NotCapturable, with the reason, if it is known before a capture that it would fail.
    build.py has already excluded other devices, `train.compile` and several processes."""
    trainee, optimizer, setting = run.trainee, run.optimizer, run.config.cuda_graph
    if setting == "off":
        raise NotCapturable("train.cuda_graph is off")
    if isinstance(run.images, StreamedImages):
        raise NotCapturable("the images are streamed, but a graph needs them on the device")
    fused = [bool(group.get("fused")) for group in optimizer.param_groups]
    if fused[0] and not all(fused):
        raise NotCapturable(
            f"parameter group {fused.index(False)}, which a callback added, is not fused, which is "
            "needed to skip a step that is not finite"
        )
    if not all(fused):
        name = run.config.optimizer
        raise NotCapturable(
            f"optimizer {name!r} has no fused kernel, which is needed to skip a step that "
            "is not finite"
        )
    size = sum(parameter.numel() for parameter in trainee.parameters())
    if setting == "auto" and size > MAX_PARAMETERS:
        raise NotCapturable(
            f"{size:,} parameters keep the device busy without a graph "
            "(train.cuda_graph=on overrides this)"
        )
    hooks = [
        name
        for name, module in trainee.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    ]
    if hooks:
        raise NotCapturable(f"{hooks[0] or 'the model'} has a hook, which a replay would not call")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise NotCapturable("the optimizer has a hook, which a replay would not call")


class CapturedStep:
    """`train_step` of `run` on full batches, captured as a CUDA graph by `build`."""

    def __init__(self, run: StepRunner, terms: Terms) -> None:
        self.run = run
        self.batch_size, self.length = run.batch_size, run.epoch_length
        device = run.device
        # The position in the epoch. It is on the device because the graph increments it.
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.table = torch.zeros(self.length, self.batch_size, dtype=torch.int64, device=device)
        self.graph = torch.cuda.CUDAGraph()
        self.next = -1  # the step whose position is in `position`; -1: unknown
        # For each term and each vector of per_dim, its values in the epoch, one per step. `terms`,
        # of an earlier step, has the shapes. A replay would clear buffers allocated in the graph.
        self.rows = {n: v.new_zeros(self.length, *v.shape) for n, v in terms.values.items()}
        self.vectors = {n: v.new_zeros(self.length, *v.shape) for n, v in terms.per_dim.items()}
        self.weights: dict[str, float] = {}
        self.grads: list[Tensor | None] = []

    @classmethod
    def build(cls, run: StepRunner, done: int) -> CapturedStep:
        """Capture the step, and verify that replays give the same weights as eager steps.

        Up to `TESTED_STEPS` steps run eagerly from the current state, and then again as replays.
        Afterwards the state is restored. Raises NotCapturable if the results differ.
        """
        check_capturable(run)
        initial = [(tensor, tensor.clone()) for tensor in written_tensors(run)]
        parameters = [p.detach() for p in run.trainee.parameters()]
        start = [p.clone() for p in parameters]
        epoch_end = done - done % run.epoch_length + run.full_batches
        steps = range(done, min(done + TESTED_STEPS, epoch_end))
        try:
            with replace_recorder(run, lambda *_: None):
                stream = torch.cuda.Stream(run.device)  # type: ignore[no-untyped-call]
                stream.wait_stream(torch.cuda.current_stream(run.device))
                with torch.cuda.stream(stream):  # torch requires this before a capture
                    for step in steps:
                        run.noise.reseed(step)
                        terms = train_step(run, run.index(step), run.step_at(step))
                torch.cuda.current_stream(run.device).wait_stream(stream)
            expected = [p.clone() for p in parameters]
            restore_tensors(initial)
            captured = cls(run, terms)
            captured._capture(stream)
            captured.start_epoch()
            for step in steps:
                captured.replay(step)
            drift = distance(parameters, expected) / max(distance(expected, start), 1e-30)
        finally:
            torch.cuda.synchronize(run.device)
            restore_tensors(initial)
        if not drift <= TOLERANCE:  # also true for NaN
            raise NotCapturable(
                f"after {len(steps)} steps, replays differ from eager steps by {drift:.2g} of the "
                "distance moved: the model or its loss stores state between steps, or uses "
                "kernels that do not sum in a fixed order"
            )
        captured.next = -1
        return captured

    def start_epoch(self) -> None:
        """Copy the image indices of the epoch's full batches, which the runner has shuffled."""
        full = self.run.order[: self.run.full_batches]
        if full:
            torch.stack(full, out=self.table[: len(full)])
        self.next = -1

    def _capture(self, stream: torch.cuda.Stream) -> None:
        """Capture on the stream of the eager steps: autograd accumulates gradients there."""
        run = self.run
        step = NumberlessStep(-1, run.total_steps, len(run.images), run.epoch_length)

        def record(terms: Terms, _images: int) -> None:
            for buffers, tensors in ((self.rows, terms.values), (self.vectors, terms.per_dim)):
                for name, value in tensors.items():
                    buffers[name].index_copy_(0, self.position, value.detach()[None])
            self.position.add_(1)
            self.weights = dict(terms.weights)

        with (
            replace_recorder(run, record),
            repair_generator(run.device),
            disable_gc(),
            torch.cuda.graph(self.graph, stream=stream),
        ):
            index = self.table.index_select(0, self.position).squeeze(0)
            try:
                train_step(run, index, step)
            except NumberRead as reason:
                raise NotCapturable(str(reason)) from None
        self.grads = [p.grad for p in run.trainee.parameters()]

    def replay(self, done: int) -> Terms:
        """Replay step number `done + 1`. The terms are valid until the next epoch."""
        position = done % self.length
        if done != self.next:  # also after an eager step
            self.position.fill_(position)
            parameters = self.run.trainee.parameters()
            for parameter, grad in zip(parameters, self.grads, strict=True):
                parameter.grad = grad
        self.run.noise.reseed(done)
        self.graph.replay()
        self.next = done + 1
        values = {name: row[position] for name, row in self.rows.items()}
        per_dim = {name: row[position] for name, row in self.vectors.items()}
        return Terms(values, self.weights, per_dim)


@contextmanager
def replace_recorder(run: StepRunner, record: Callable[[Terms, int], None]) -> Iterator[None]:
    """Make each step in the block pass its terms to `record` instead of the log of `run`."""
    previous = run.record
    run.record = record
    try:
        yield
    finally:
        run.record = previous


@contextmanager
def disable_gc() -> Iterator[None]:
    """Disable garbage collection in the block. A capture fails if the CUDA graph of another run is
    destroyed meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def repair_generator(device: torch.device) -> Iterator[None]:
    """Give the device's generator a new state if a capture fails. Otherwise it would stay in
    capture mode, and every later random function would raise an error."""
    try:
        yield
    except BaseException:
        generator = torch.cuda.default_generators[device.index or 0]
        generator.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
        raise


def written_tensors(run: StepRunner) -> list[Tensor]:
    """All tensors that a step writes: weights, buffers, the optimizer's state, the gate's flag."""
    modules = [*run.trainee.parameters(), *run.trainee.buffers()]
    state = [value for values in run.optimizer.state.values() for value in values.values()]
    written = [*modules, *state, run.gate.flag]
    return [tensor.detach() for tensor in written if isinstance(tensor, Tensor)]


def restore_tensors(initial: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in initial:
        tensor.copy_(value)


def distance(first: list[Tensor], second: list[Tensor]) -> float:
    """The Euclidean distance between two lists of tensors, each treated as one vector."""
    squares = [(a - b).double().square().sum() for a, b in zip(first, second, strict=True)]
    return float(torch.stack(squares).sum().sqrt())
