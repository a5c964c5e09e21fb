"""The contracts of components, which docs/contracts.md explains: the Protocols, and the values that
core and plugins exchange. Importing this module imports neither torch nor Ignite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from ignite.engine import Engine
    from torch import Tensor, nn


@dataclass(frozen=True)
class DataSpec:
    """The data that a model is built for. `shape` is that of one example: (C, H, W) or (D,).
    `classes[i]` is the name of label i. All values are in `range`."""

    shape: tuple[int, ...]
    kind: Literal["image", "vector"] = "image"
    classes: tuple[str, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def size(self) -> int:
        """The number of values in one example: C*H*W, or D."""
        return math.prod(self.shape)

    @property
    def drawable(self) -> bool:
        """Whether an example can be drawn as a picture: an image that is grey or RGB."""
        return self.kind == "image" and self.shape[0] in (1, 3)


@dataclass(frozen=True)
class LatentSpec:
    """The `shape` of one code, and the `prior` if the model has one."""

    shape: tuple[int, ...]
    prior: Literal["normal"] | None = None


LARGEST_BATCH = 2**25
"""The maximum number of values in a batch, 128 MB of float32: 1000 RGB images of 105x105 pixels."""


def at_once(spec: DataSpec, most: int) -> int:
    """The batch size for a pass over a split: at most `most` images and LARGEST_BATCH values."""
    return max(1, min(most, LARGEST_BATCH // spec.size))


@dataclass(frozen=True)
class Arrays:
    """One split of a dataset. `x`: (N, H, W), (N, C, H, W) or (N, D), uint8 or float in [0, 1];
    data.layout, data.black and data.white describe others. `y`: (N,) integers that index `classes`,
    names of classes, or None. `files`: of each example. `where` names the data in errors."""

    x: np.ndarray[Any, Any] | Tensor
    y: np.ndarray[Any, Any] | Tensor | None = None
    classes: Sequence[str] = ()
    files: Sequence[str] | None = None
    where: str = ""


@dataclass(slots=True)  # not frozen: one is created per step, and freezing costs 1 µs
class Batch:
    """The input of a step. `x`: float32 (B, C, H, W) or (B, D), in [0, 1]. `y`: int64 (B,) or None.
    `index`: int64 (B,), the position of each example in its split."""

    x: Tensor
    y: Tensor | None
    index: Tensor


class Images(Protocol):
    """One preprocessed split of a run's data, in memory or streamed from disk. `x`: all images,
    (N, *spec.shape), uint8 or float32 in [0, 1]; reading it raises UsageError if they are streamed.
    `y`: int64 (N,) indices into `spec.classes`, or None. `dynamic`: binarized in each batch."""

    @property
    def spec(self) -> DataSpec: ...
    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor | None: ...
    @property
    def dynamic(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def stored(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def raw(self, index: Tensor) -> Tensor:
        """The images at `index` in their stored dtype, (B, *spec.shape), uint8 or float32."""

    def same_as(self, other: Any) -> bool:
        """Whether both splits contain the same images."""

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, int64 (B,) on `device`."""

    def batch_at(self, places: Sequence[int]) -> Batch:
        """The examples at these positions. Raises UsageError if a position does not exist."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all examples once, in order, in batches of `size`; the last one may be smaller."""

    def of_class(self, label: int) -> Tensor:
        """The positions of the examples of one class, int64 (n,), in order."""


class RunInfo(Protocol):
    """The part of a run that plugins can read. `status`: running, done, interrupted, failed or
    killed. `metrics`: the last metrics of each split. `config`: the resolved config, structured
    like the TOML file."""

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def metrics(self) -> dict[str, dict[str, float]]: ...
    @property
    def config(self) -> dict[str, Any]: ...


@runtime_checkable
class Posterior(Protocol):
    """q(z | x) of a batch. Exploration and encoding use `mode()`; training uses one `sample()`."""

    def mode(self) -> Tensor:
        """The most likely code, (B, *latent.shape)."""

    def sample(self) -> Tensor:
        """One differentiable sample from the device's default generator, (B, *latent.shape)."""


@runtime_checkable
class VariationalPosterior(Posterior, Protocol):
    """The posterior of a model with a prior (capability `kl`)."""

    def kl(self) -> Tensor:
        """KL(q(z|x) || p(z)) in nats for each latent dimension, (B, *latent.shape)."""


class Autoencoder(Protocol):
    """A model that provides `encode`, `decode` and, for a Bernoulli likelihood, `decode_logits`."""

    latent: LatentSpec

    def encode(self, x: Tensor) -> Posterior:
        """Map x (B, *data.shape) to the posterior over codes."""

    def decode(self, z: Tensor) -> Tensor:
        """Map z (B, *latent.shape) to the mean of x, in [0, 1], (B, *data.shape)."""

    def decode_logits(self, z: Tensor) -> Tensor:
        """Map z to the logits of `decode(z)`, (B, *data.shape)."""


@dataclass(slots=True)
class Step:
    """The progress of a run: the number of optimizer steps before this one (`index`) and in the
    whole run (`total`), of training images (`images`), and of steps per epoch (`epoch_length`)."""

    index: int
    total: int
    images: int
    epoch_length: int

    @property
    def first(self) -> bool:
        """Whether this is the first step of the run, in which a loss may inspect its input. A loss
        that reads `first`, but neither `index` nor `epoch`, can be replayed as a CUDA graph."""
        return self.index == 0

    @property
    def epoch(self) -> float:
        """The number of completed epochs, as a float: the unit of warm-ups and schedules."""
        return self.index / self.epoch_length


class Terms(NamedTuple):
    """The parts of a loss: 0-d tensors on the device, means over the batch in nats per image.

    The core minimises the sum of `values[k] * weights[k]`. A missing weight is 1; a term of weight
    0 is logged but not trained on. `per_dim` are detached vectors, such as the KL of each latent
    dimension; their means over an epoch are logged.
    """

    values: Mapping[str, Tensor]
    weights: Mapping[str, float] = {}
    per_dim: Mapping[str, Tensor] = {}

    def check(self) -> None:
        """Raise TypeError or ValueError if the terms are invalid; called in the first step."""
        for name, value in self.values.items():
            if getattr(value, "shape", None) != ():
                what = getattr(value, "shape", None) or type(value).__name__
                raise TypeError(f"term {name!r} must be a 0-d tensor, not {what}")
        if "loss" in self.values:
            raise ValueError("a term cannot be called 'loss', the name of the weighted sum")
        for name, vector in self.per_dim.items():
            if getattr(vector, "ndim", 0) == 0 or vector.requires_grad:
                raise TypeError(f"per_dim {name!r} must be a detached tensor, and not 0-d")
        if unknown := sorted(set(self.weights) - set(self.values)):
            raise ValueError(f"a weight is given for {unknown[0]!r}, which is not a term")
        if not any(self.weights.get(name, 1.0) for name in self.values):
            raise ValueError("all terms have weight 0, so there is nothing to train on")

    def total(self) -> Tensor:
        """The scalar to minimise."""
        parts = [
            value if weight == 1.0 else value * weight
            for name, value in self.values.items()
            if (weight := self.weights.get(name, 1.0)) != 0.0
        ]
        return sum(parts[1:], start=parts[0])


class Loss(Protocol):
    """A loss is an `nn.Module`, so it may have parameters, such as a learnt sigma or a codebook.

    Optional attributes: `likelihood`, a `latentforge.latent.Likelihood` that measures use, and
    `facts(model, data) -> {name: value}`, JSON values that the run stores and `--verbose` prints.
    """

    def __call__(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        """Compute the terms of one batch. The loss itself samples z. It must not call `.item()`,
        which waits for the device."""


class Objective(Protocol):
    """What a latent search maximises. One objective defines `len(requests)` requests. Row i of `x`
    is an attempt at request `request[i]`, so a search can restart some requests and drop others.

    Optional attributes: `classes`, int64 (requests,), is the target class of each request, so that
    a search can start from other classes and a judge can check the results; `findings(x)` returns
    `Findings` about the results x (requests, *data.shape); `open_ended = True` means that the
    objective is never satisfied, so that the search runs to the last step.
    """

    @property
    def requests(self) -> Sequence[str]:
        """A description of each request; may also be a plain attribute."""

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        """How well each row satisfies its request: (B,), differentiable, higher is better."""

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        """Return which rows satisfy their request: bool (B,)."""


@dataclass
class Seen:
    """One evaluation batch and the model's outputs for it. Each property is computed once for all
    measures. `z` is the mode of the posterior, `z_samples` are two seeded samples."""

    model: Any
    batch: Batch
    _cache: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The result of `compute()`, computed once for all measures that use the same `key`."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    @cached_property
    def posterior(self) -> Posterior:
        posterior: Posterior = self.model.encode(self.batch.x)
        return posterior

    @cached_property
    def z(self) -> Tensor:
        return self.posterior.mode()

    @cached_property
    def z_samples(self) -> tuple[Tensor, Tensor]:  # drawn together, so that they always differ
        return self.posterior.sample(), self.posterior.sample()

    @property
    def z_sample(self) -> Tensor:
        return self.z_samples[0]

    @cached_property
    def recon_logits(self) -> Tensor:
        logits: Tensor = self.model.decode_logits(self.z)
        return logits

    @cached_property
    def recon(self) -> Tensor:
        recon: Tensor = self.model.decode(self.z)
        return recon

    @cached_property
    def logits(self) -> Tensor:
        logits: Tensor = self.model(self.batch.x)
        return logits


@dataclass(frozen=True)
class EvaluateContext:
    """What a measure is built with: the run's model and loss, and the name of the `split` to
    evaluate. `preprocessing` describes how stored values became images; `fingerprint` identifies
    the data. `roles` contains other runs by role (`--with classifier=RUN`)."""

    model: nn.Module
    loss: nn.Module
    data: DataSpec
    images: Callable[[str], Images]  # returns a split by name
    split: str
    preprocessing: Mapping[str, Any]
    fingerprint: str
    step: Step
    seed: int
    roles: Mapping[str, Any] = field(default_factory=dict)


class Measure(Protocol):
    """An accumulator: `update` receives every batch of the split, `compute` returns the metrics."""

    def update(self, seen: Seen) -> None: ...
    def compute(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Engines:
    """What a callback attaches to. `trainer` and `evaluator` are Ignite engines; `log(name, value)`
    logs a scalar at the trainer's current step."""

    trainer: Engine
    evaluator: Engine
    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    log: Callable[[str, float], None]


class Callback(Protocol):
    def attach(self, engines: Engines) -> None:
        """Add handlers to Ignite events of `engines.trainer` or `engines.evaluator`."""


class OtherRun(Protocol):
    """Another run, given by role (`--with ROLE=RUN`) and trained on images of the same kind."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Any: ...
    @property
    def data(self) -> DataSpec: ...
    @property
    def run(self) -> RunInfo: ...


@dataclass(frozen=True)
class ExploreContext:
    """What an explorer works with: the model in evaluation mode on `device`, the run's preprocessed
    images, and other runs by role. An explorer returns findings and writes no file.

    `name` is the name of the run, `loss` the loss that it was trained with, `provides` the
    capabilities of its model. `preprocessing` describes how stored values became images. If the
    explorer searches, `objective` is set, and passing `attach` to the search shows its progress.
    """

    model: Any
    data: DataSpec
    images: Callable[[str], Images]  # returns a split by name
    device: torch.device
    seed: int
    roles: Mapping[str, OtherRun] = field(default_factory=dict)
    name: str = ""
    loss: Any = None
    provides: Set[str] = frozenset()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    objective: Any = None
    attach: Callable[[Engine], None] | None = None

    def codes(self, split: str, model: Any = None) -> Tensor:
        """The posterior modes of all images of a split, (N, *latent.shape), in the order of the
        split. `model` may be the model of another run."""
        import torch

        encoder = self.model if model is None else model
        with torch.no_grad():
            size = at_once(self.data, 1000)
            return torch.cat([encoder.encode(b.x).mode() for b in self.images(split).batches(size)])
