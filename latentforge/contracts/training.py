"""Training: Step, Terms, and the Loss and Callback protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from latentforge.contracts.data import Batch

if TYPE_CHECKING:
    import torch
    from ignite.engine import Engine
    from torch import Tensor, nn


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

    Optional attributes: `likelihood`, a `latentforge.latent.Likelihood`, without which there are no
    metrics in nats such as recon, or None if that is intended; and `facts(model, data) -> {name:
    value}`, JSON values that the run stores and `--verbose` prints.
    """

    def __call__(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        """Compute the terms of one batch. The loss itself samples z. It must not call `.item()`,
        which waits for the device."""


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
