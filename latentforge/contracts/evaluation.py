"""Evaluation: what a measure receives, and the Measure protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from latentforge.contracts.data import Batch, DataSpec, Images
from latentforge.contracts.models import Posterior
from latentforge.contracts.training import Step

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


@dataclass
class Seen:
    """One evaluation batch and the model's outputs for it. Each property is computed once for all
    measures. `z` is the mode of the posterior, `z_samples` are two seeded samples. `model` is the
    view under the labels of the batch if the model is conditional."""

    model: Any
    batch: Batch
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """The result of `compute()`, computed once for all measures that use the same `key`."""
        if key not in self._cache:
            self._cache[key] = compute()
        found: T = self._cache[key]
        return found

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
    the data. `roles` contains other runs by role (`--with classifier=RUN`). `provides` are the
    capabilities of the model."""

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
    provides: Set[str] = frozenset()


class Measure(Protocol):
    """An accumulator: `update` receives every batch of the split, `compute` returns the metrics."""

    def update(self, seen: Seen) -> None: ...
    def compute(self) -> Mapping[str, float]: ...
