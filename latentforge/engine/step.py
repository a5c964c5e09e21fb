"""`train_step`, which runs one optimizer step, and StepRunner, which runs the steps of a run.

A step is a pure function of (weights, optimizer state, seed, step) and uses no other state.
Strategies (compiled, cuda_graph, data_parallel, vectorized) are subclasses in separate files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from latentforge.config.schema import RunConfig
from latentforge.contracts import Batch, Step, Terms
from latentforge.data.images import ImageSplit
from latentforge.data.prefetch import worker_error
from latentforge.data.streamed import StreamedImages
from latentforge.engine.ema import ExponentialMovingAverage
from latentforge.engine.finite import FiniteGate, describe_largest_gradient
from latentforge.engine.loss_log import LossLog
from latentforge.engine.lr_schedule import lr_factor
from latentforge.engine.memory_format import is_channels_last
from latentforge.engine.optimizer import OWN_LR, added_groups, build_optimizer, direct_step
from latentforge.errors import PluginError, RunFailed
from latentforge.plugins.attribution import call_component
from latentforge.seeding import Noise, permutation

T = TypeVar("T")
Part = tuple[Batch, float, AbstractContextManager[None]]
"""Images of a batch, their fraction of the batch, and a context for their forward and backward."""
SAVE_MEMORY = "a smaller --batch-size, or --set train.accumulate=4 to process each batch in parts"


def train_step(run: StepRunner, index: Tensor, step: Step) -> Terms:
    """Run one optimizer step on the images at `index`, int64 (B,): batch, forward, backward,
    update, record. Returns the loss terms, detached, on the device.

    If the loss or, with clipping, the gradient norm is not finite, the weights do not change.
    """
    batch = run.load_batch(index)  # x (B, *data.shape) on the device
    for parameter in run.parameters:  # the same as zero_grad(), which takes 27 µs
        parameter.grad = None
    if run.splits_batches:  # train.accumulate, or several processes
        terms, total = run.gradients(batch, step)
    else:
        terms = forward(run.trainee, batch, step)
        total = terms.total()  # 0-d, nats per image
        total.backward()  # type: ignore[no-untyped-call]
    if run.clip:
        norm = torch.nn.utils.clip_grad_norm_(run.trainee.parameters(), run.clip)
        total = total.detach() + 0.0 * norm  # finite only if both are
    if run.gate.passes(total.detach(), run.optimizer):
        run.update()
    # Detached: stored terms would keep autograd's graph alive. Its nodes remember their stream, so
    # a capture on another stream would accumulate gradients outside of the capture.
    terms = terms._replace(values={name: value.detach() for name, value in terms.values.items()})
    run.record(terms, len(index))
    return terms


class Trainee(nn.Module):
    """Model and loss as one module, so that they are moved, optimised and wrapped together. The
    loss receives the view of a `conditional` model under the labels of the batch. `step_hooks` are
    their methods `after_step`, which either may have."""

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        precision: str = "float32",
        *,
        conditional: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision
        self.conditional = conditional
        hooks = getattr(model, "after_step", None), getattr(loss, "after_step", None)
        self.step_hooks: list[Callable[[], object]] = [*filter(None, hooks)]

    def forward(self, batch: Batch, step: Step) -> Terms:
        model: Any = self.model
        if self.conditional:
            model = model.given(batch.y)
        if self.precision == "bf16":
            with torch.autocast(batch.x.device.type, torch.bfloat16):
                terms: Terms = self.loss(model, batch, step)
            return terms
        terms = self.loss(model, batch, step)
        return terms


def forward(trainee: nn.Module, batch: Batch, step: Step) -> Terms:
    """Return the loss terms. In the first step, raises TypeError or ValueError for invalid ones."""
    if not step.first:
        terms: Terms = trainee(batch, step)
    else:
        terms = trainee.forward(batch, step)  # not compiled: the loss may inspect its first batch
        if not isinstance(terms, Terms):
            raise TypeError(f"the loss returned {type(terms).__name__}, not Terms")
        terms.check()
    return terms


def accumulate(trainee: nn.Module, parts: Iterable[Part], step: Step) -> Terms:
    """Run forward and backward on each part, weighted by its size; return the batch's terms."""
    values: dict[str, Tensor] = {}
    per_dim: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    for part, share, context in parts:
        with context:
            terms = forward(trainee, part, step)
            (terms.total() * share).backward()  # type: ignore[no-untyped-call]
        for sums, new in ((values, terms.values), (per_dim, terms.per_dim)):
            for name, value in new.items():
                sums[name] = value.detach() * share + sums.get(name, 0.0)
        weights = dict(terms.weights)
    return Terms(values, weights, per_dim)


def split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yield `parts` parts of the batch, or one for each image if there are fewer images."""
    start = 0
    for indices in batch.index.tensor_split(min(parts, len(batch.index))):
        part = slice(start, start := start + len(indices))
        yield batch.select(part)


def followed_by(
    update: Callable[[], object], hooks: Sequence[Callable[[], object]]
) -> Callable[[], object]:
    """Return a function that calls `update` and then, without gradients, the hooks."""

    def update_and_call() -> None:
        update()
        with torch.no_grad():
            for hook in hooks:
                hook()

    return update_and_call


class StepRunner:
    """Runs the training steps of `trainee` on `images`, both on `device`, one by one and eagerly.

    This is the interface of every strategy: `start_epoch` and `run`. A strategy replaces some of
    `load_batch`, `gradients`, `record` and `run`. `graph` states whether steps are replayed as a
    CUDA graph, and if not, why.
    """

    def __init__(
        self, trainee: Trainee, images: ImageSplit, config: RunConfig, device: torch.device
    ) -> None:
        train, self.callbacks = config.train, config.callbacks
        self.config = train
        self.trainee, self.images, self.device = trainee, images, device
        self.batch_size = train.batch_size
        self.accumulate, self.clip = train.accumulate, train.clip_grad_norm
        self.splits_batches = train.accumulate > 1
        self.epoch_length = math.ceil(len(images) / train.batch_size)
        self.full_batches = len(images) // train.batch_size  # full batches in an epoch
        self.total_steps = train.epochs * self.epoch_length
        self.optimizer = build_optimizer(trainee, train)
        # callbacks may add hooks to the optimizer, and only `optimizer.step` calls them
        update = self.optimizer.step if config.callbacks else direct_step(self.optimizer)
        hooks = trainee.step_hooks
        self.update = followed_by(update, hooks) if hooks else update
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule = train.schedule if train.schedule.epochs else None  # None: constant
        self.ema = ExponentialMovingAverage(trainee, train.ema) if train.ema else None
        self.noise = Noise(device, "train", train.seed)
        self.gate, self.log = FiniteGate(device), LossLog()
        self.load_batch: Callable[[Tensor], Batch] = images.batch
        self.record: Callable[[Terms, int], None] = self.log.add
        self.components = config.model.entry, config.loss.entry
        self.order: tuple[Tensor, ...] = ()  # image indices of each batch of the epoch
        self.graph = f"no: device type {device.type} has no CUDA graphs"
        self.notes: list[str] = []  # differences from the steps of a single process

    def start_epoch(self, epoch: int) -> None:
        """Shuffle the images into the batches of an epoch, counted from 0."""
        order = permutation(len(self.images), self.config.seed, epoch)
        if isinstance(self.images, StreamedImages):  # indexed on the CPU
            self.order = torch.split(order, self.batch_size)
            self.images.expect([self.shard_indices(index) for index in self.order])
        else:
            self.order = torch.split(order.to(self.device), self.batch_size)

    def run(self, done: int) -> Terms:
        """Run step number `done + 1`. Raises a PluginError that names the model and the loss."""
        if self.callbacks:
            self.include_added_groups()
        if self.schedule:
            self.set_learning_rate(done)
        self.noise.reseed(done)
        terms = self.call(done, train_step, self, self.index(done), self.step_at(done))
        if self.ema:
            self.ema.update(done)
        return terms

    def call(self, done: int, function: Callable[..., T], *args: Any) -> T:
        """Call a function that uses the model and the loss. An error names step `done + 1`."""
        action = f"step {done + 1}"
        try:
            return call_component(action, self.components, function, *args, save_memory=SAVE_MEMORY)
        except PluginError as error:  # torch may report a lost reader process in any step
            if error.__cause__ and (failure := worker_error(error.__cause__)):
                raise failure from error.__cause__
            raise

    def include_added_groups(self) -> bool:
        """Train the parameter groups that callbacks have added to the optimizer since the last
        step, and return whether there are any. Raises a PluginError that names the callbacks."""
        known, groups = len(self.base_lrs), self.optimizer.param_groups
        if len(groups) == known:
            return False
        entries = [callback.entry for callback in self.callbacks]
        added = call_component(
            "a callback", entries, added_groups, self.optimizer, self.trainee, known
        )
        self.base_lrs += [group[OWN_LR] for group in added]
        parameters = [p for group in groups for p in group["params"]]
        self.parameters = [*dict.fromkeys([*self.parameters, *parameters])]  # each once
        return True

    # ------------------------------------------------------------ parts of train_step

    def gradients(self, batch: Batch, step: Step) -> tuple[Terms, Tensor]:
        """Run forward and backward on a batch in parts; return terms and total, detached."""
        batches = split_batch(batch, self.accumulate)
        parts = ((part, len(part.index) / len(batch.index), nullcontext()) for part in batches)
        terms = accumulate(self.trainee, parts, step)
        return terms, terms.total()

    # ------------------------------------------------------------ functions of the step number

    def index(self, done: int) -> Tensor:
        """The indices of the step's images, int64 (B,)."""
        return self.order[done % self.epoch_length]

    def shard_indices(self, index: Tensor) -> Tensor:
        """The indices of the images of a batch that this process reads."""
        return index

    def step_at(self, done: int) -> Step:
        return Step(done, self.total_steps, len(self.images), self.epoch_length)

    def final_step(self) -> Step:
        """The step at which schedules have ended. Evaluation uses it, so that a warm-up does not
        favour early epochs."""
        return self.step_at(self.total_steps)

    def set_learning_rate(self, done: int) -> None:
        """Set the scheduled learning rate of step number `done + 1`."""
        assert self.schedule
        factor = lr_factor(self.schedule, done, self.epoch_length)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def without_graph(self, reason: str) -> None:
        """Record why no CUDA graph is used. Raises RunFailed if `train.cuda_graph` is "on"."""
        if self.config.cuda_graph == "on":
            raise RunFailed(
                f"the step cannot be captured as a CUDA graph: {reason}",
                hint="--set train.cuda_graph=auto",
            )
        self.graph = f"no: {reason}"

    # ------------------------------------------------------------ reports

    def explain_failure(self, number: int) -> list[str]:
        """Recompute and describe the gradients of the blocked step `number`, counted from 1."""
        done = number - 1
        with suppress(Exception):  # the first error is the one to report
            self.noise.reseed(done)
            batch = self.load_batch(self.index(done))
            for parameter in self.parameters:
                parameter.grad = None
            self.recompute_gradients(batch, self.step_at(done))
        return describe_largest_gradient(self.trainee)

    def recompute_gradients(self, batch: Batch, step: Step) -> None:
        self.gradients(batch, step)

    def describe(self) -> dict[str, Any]:
        """Describe how the steps are executed, for run.json."""
        images = self.images
        source = images.describe_source() if isinstance(images, StreamedImages) else "in memory"
        return {
            "precision": self.config.precision,
            "channels_last": is_channels_last(self.trainee),
            "compile": False,
            "fused": all(bool(group.get("fused")) for group in self.optimizer.param_groups),
            "cuda_graph": self.graph,
            "images": source,
        }

    def summary(self) -> list[str]:
        """List the differences from a plain float32 step, as strings for the user."""
        facts = self.describe()
        texts = ["bfloat16 autocast"] if facts["precision"] == "bf16" else []
        texts += [name for name in ("channels_last", "compile") if facts[name]]
        if self.device.type == "cuda":
            texts.append(self.graph or "a CUDA graph after the first steps")
        if isinstance(self.images, StreamedImages):
            texts.append(f"images {facts['images']}")
        return texts

    def close(self) -> None:
        """Stop prefetching images."""
        if isinstance(self.images, StreamedImages):
            self.images.close()
