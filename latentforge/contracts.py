"""What components promise each other at run time: the Protocols and the values they exchange.

docs/contracts.md is the prose. torch and Ignite are named for type checkers only.
"""

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
    """What a model is built for.

    `shape` is that of one example without the batch: (C, H, W) for an image, (D,) for a vector.
    `classes` are the label names in order, empty without labels. Values lie in `range`."""

    shape: tuple[int, ...]
    kind: Literal["image", "vector"] = "image"
    classes: tuple[str, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def size(self) -> int:
        """The numbers in one example: C*H*W pixels, or D."""
        return math.prod(self.shape)

    @property
    def drawable(self) -> bool:
        """Whether an example is a picture, grey or RGB."""
        return self.kind == "image" and self.shape[0] in (1, 3)


@dataclass(frozen=True)
class LatentSpec:
    """What a code looks like: `shape` without the batch, and the prior if the model has one."""

    shape: tuple[int, ...]
    prior: Literal["normal"] | None = None


LARGEST_BATCH = 2**25
"""Values, 128 MB of floats: 1000 images of up to 105x105 pixels in colour."""


def at_once(spec: DataSpec, most: int) -> int:
    """How many images, of `most`, are floats in memory at once where a split is gone through."""
    return max(1, min(most, LARGEST_BATCH // spec.size))


@dataclass(frozen=True)
class Arrays:
    """One split of a dataset, whole.

    `x`: (N, H, W), (N, C, H, W) or (N, D); uint8, or float in [0, 1]. (N, H, W, C) is recognised
    where C is 1, 3 or 4 and the second number is none of these. `y`: (N,) integers that index
    `classes`, or None. numpy arrays and tensors both do."""

    x: np.ndarray[Any, Any] | Tensor
    y: np.ndarray[Any, Any] | Tensor | None = None
    classes: Sequence[str] = ()


@dataclass(slots=True)  # not frozen: one is made a step, and freezing costs 1 µs
class Batch:
    """`x`: float32 (B, C, H, W) in [0, 1], or (B, D). `y`: int64 (B,) or None. `index`: int64 (B,),
    the place of each example in its split."""

    x: Tensor
    y: Tensor | None
    index: Tensor


class Images(Protocol):
    """One split of a run's data, preprocessed, in memory or streamed from disk. `x`: all images,
    (N, *spec.shape), uint8 or float32 in [0, 1]; UsageError if they are streamed. `y`: int64 (N,)
    that indexes `spec.classes`, or None. `dynamic`: each batch is binarized at random."""

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
        """The images at `index` as they are stored, (B, *spec.shape), uint8 or float32."""

    def same_as(self, other: Any) -> bool:
        """Whether two splits hold the same images."""

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, int64 (B,) on the same device."""

    def batch_at(self, places: Sequence[int]) -> Batch:
        """The examples at these positions; UsageError for one that does not exist."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Every example once, in order, `size` at a time; the last batch may be shorter."""

    def of_class(self, label: int) -> Tensor:
        """The positions of the examples of one class, int64 (n,), in order."""


class RunInfo(Protocol):
    """What plugins see of a run. `status`: running, done, interrupted, failed or killed. `metrics`:
    the last ones by split. `config`: resolved, in the shape of the TOML file."""

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
    """q(z | x) of a batch. Exploring and embedding take `mode()`; training takes one `sample()`."""

    def mode(self) -> Tensor:
        """The most likely code, (B, *latent.shape)."""

    def sample(self) -> Tensor:
        """One code from the device's default generator, (B, *latent.shape), differentiable."""


@runtime_checkable
class VariationalPosterior(Posterior, Protocol):
    """The posterior of a model that has a prior (ability `kl`)."""

    def kl(self) -> Tensor:
        """KL(q(z|x) || p(z)) in nats for each latent dimension, (B, *latent.shape)."""


class Autoencoder(Protocol):
    """A model that provides `encode`, `decode` and, for a Bernoulli likelihood, `decode_logits`."""

    latent: LatentSpec

    def encode(self, x: Tensor) -> Posterior:
        """x (B, *data.shape) to the posterior over codes."""

    def decode(self, z: Tensor) -> Tensor:
        """z (B, *latent.shape) to the mean of x, in [0, 1], (B, *data.shape)."""

    def decode_logits(self, z: Tensor) -> Tensor:
        """z to the logits of `decode(z)`, (B, *data.shape)."""


@dataclass(slots=True)
class Step:
    """Where a training is: optimizer steps done before this one, steps in all, training images,
    and the steps of an epoch."""

    index: int
    total: int
    images: int
    epoch_length: int

    @property
    def first(self) -> bool:
        """Whether it is the first of all, where a loss may look at what it gets. A loss that asks
        this, and neither `index` nor `epoch`, can be replayed as a CUDA graph."""
        return self.index == 0

    @property
    def epoch(self) -> float:
        """Epochs done, with their fraction: what warm-ups and schedules are written in."""
        return self.index / self.epoch_length


class Terms(NamedTuple):
    """The parts of a loss: 0-d tensors on the device, means over the batch in nats per image.

    The core minimises the sum of `values[k] * weights[k]`; a missing weight is 1, and a term of
    weight 0 is logged and not trained on. `per_dim` are detached vectors, such as the KL of each
    latent dimension, that are averaged over an epoch and logged.
    """

    values: Mapping[str, Tensor]
    weights: Mapping[str, float] = {}
    per_dim: Mapping[str, Tensor] = {}

    def check(self) -> None:
        """TypeError or ValueError where a loss breaks this contract; run on the first step."""
        for name, value in self.values.items():
            if getattr(value, "shape", None) != ():
                what = getattr(value, "shape", None) or type(value).__name__
                raise TypeError(f"term {name!r} must be a 0-d tensor, not {what}")
        if "loss" in self.values:
            raise ValueError("a term cannot be called 'loss': that is the name of the total")
        for name, vector in self.per_dim.items():
            if getattr(vector, "ndim", 0) == 0 or vector.requires_grad:
                raise TypeError(f"per_dim {name!r} must be a detached tensor with a dimension")
        if unknown := sorted(set(self.weights) - set(self.values)):
            raise ValueError(f"a weight is given for {unknown[0]!r}, which is no term")
        if not any(self.weights.get(name, 1.0) for name in self.values):
            raise ValueError("no term has a weight other than 0, so there is nothing to train on")

    def total(self) -> Tensor:
        """The scalar to minimise."""
        parts = [
            value if weight == 1.0 else value * weight
            for name, value in self.values.items()
            if (weight := self.weights.get(name, 1.0)) != 0.0
        ]
        return sum(parts[1:], start=parts[0])


class Loss(Protocol):
    """An `nn.Module`, so that it may have parameters of its own (a learnt sigma, a codebook).

    It may also have `likelihood`, a `latentforge.latent.Likelihood`, which measures then use, and
    `facts(model, data) -> {name: value}`, JSON values that the run prints and stores at its start.
    """

    def __call__(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        """The terms for one batch. Sampling z is the loss's business. No `.item()`: it would wait
        for the device."""


class Objective(Protocol):
    """What a latent search maximises. One objective makes `len(requests)` requests at once; row i
    of `x` is an attempt at request `request[i]`, so that a search can restart some, drop others.

    It may also have `classes`, int64 (requests,), the class that each asks for, so that a search
    can start elsewhere and a judge can check it; and `findings(x) -> Findings`, what its results x
    (requests, *data.shape) come to. One that is never satisfied says so by `open_ended = True`,
    and is searched to the last step.
    """

    @property
    def requests(self) -> Sequence[str]:
        """What each one asks for, in words; an attribute will do."""

    def score(self, x: Tensor, request: Tensor) -> Tensor:
        """How well each row meets its request, higher is better, differentiable; (B,)."""

    def satisfied(self, x: Tensor, request: Tensor) -> Tensor:
        """Which rows meet their request; bool (B,)."""


@dataclass
class Seen:
    """One evaluation batch and what the model makes of it; each property is computed once for all
    measures. `z` is the posterior's mode, `z_sample` one seeded sample of it."""

    model: Any
    batch: Batch
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, computed once for all measures that ask for `key`."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    @cached_property
    def posterior(self) -> Posterior:
        posterior: Posterior = self.model.encode(self.batch.x)
        return posterior

    @cached_property
    def z(self) -> Tensor:
        return self.posterior.mode()

    @cached_property
    def z_sample(self) -> Tensor:
        return self.posterior.sample()

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
    """What a measure is built with: the run's model and loss, and `split`, which will be shown.
    `preprocessing` says how stored numbers became images, `fingerprint` which data they are.
    `roles` are other runs, by role (`--with classifier=RUN`)."""

    model: nn.Module
    loss: nn.Module
    data: DataSpec
    images: Callable[[str], Images]  # a split by its name
    split: str
    preprocessing: Mapping[str, Any]
    fingerprint: str
    step: Step
    seed: int
    roles: Mapping[str, Any] = field(default_factory=dict)


class Measure(Protocol):
    """An accumulator: it is shown every batch of the split, then asked for its figures."""

    def update(self, seen: Seen) -> None: ...
    def compute(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Engines:
    """What a callback attaches to. `trainer` and `evaluator` are Ignite engines; `log(name, value)`
    records a scalar at the trainer's current step."""

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
    """Another run that was handed over (`--with ROLE=RUN`), trained on images of the same kind."""

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
    """What an explorer works with: the model in eval mode on `device`, the run's own images
    (already preprocessed), and the other runs by role. It returns findings, writes no file.

    `name` is the run's, `loss` what it was trained with, `provides` its model's abilities.
    `preprocessing` says how stored numbers became images. `objective` is what an explorer that
    searches shall reach, and `attach` goes to its search, which then shows its progress.
    """

    model: Any
    data: DataSpec
    images: Callable[[str], Images]  # a split by its name
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
        """The posterior's mode of every image of a split, (N, *latent.shape), in its order; of
        another run's `model` if one is given."""
        import torch

        encoder = self.model if model is None else model
        with torch.no_grad():
            size = at_once(self.data, 1000)
            return torch.cat([encoder.encode(b.x).mode() for b in self.images(split).batches(size)])
