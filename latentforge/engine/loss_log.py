"""LossLog: collects the loss terms on the device and fetches them at the log interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import Terms
from latentforge.errors import RunFailed


@dataclass
class Sums:
    """Sums over images: each value is weighted by its number of images."""

    totals: dict[str, float] = field(default_factory=dict)
    images: int = 0

    def add(self, values: Mapping[str, float], images: int) -> None:
        for name, value in values.items():
            # a weight that first appears in a later step was 1 before
            before = self.images if name.endswith("_weight") else 0.0
            self.totals[name] = self.totals.get(name, before) + value * images
        self.images += images

    def means(self) -> dict[str, float]:
        return {name: total / self.images for name, total in self.totals.items()}


@dataclass
class LossLog:
    """Collects each step's terms; `fetch` copies them in one transfer, `read` averages them.

    Reading a number waits for the device, so a step only stores its tensors. A loss that is not
    finite is therefore detected at the next fetch, which can still name its step. Sums are
    accumulated step by step, so they are bit-identical however often the terms are fetched.
    """

    terms: tuple[str, ...] = ()
    _weighted: dict[str, None] = field(default_factory=dict)  # terms that ever had a weight
    # for each step that is still on the device: the terms, their weights, the number of images
    _steps: list[tuple[dict[str, Tensor], Mapping[str, float], int]] = field(default_factory=list)
    _window: Sums = field(default_factory=Sums)  # since the last read
    _epoch: Sums = field(default_factory=Sums)
    _per_dim: dict[str, Tensor] = field(default_factory=dict)  # sums of the epoch, on the device

    def add(self, terms: Terms, images: int) -> None:
        self._steps.append((dict(terms.values), dict(terms.weights), images))
        for name, vector in terms.per_dim.items():
            if name in self._per_dim:
                self._per_dim[name].add_(vector, alpha=images)
            else:
                self._per_dim[name] = vector * images

    def read(self) -> dict[str, float]:
        """Return the means of the loss, its terms and, as `<term>_weight`, their weights over the
        steps that were fetched since the last read."""
        means = self._window.means()
        self._window = Sums()
        return means

    def fetch(self, step: int) -> None:
        """Copy the collected terms from the device; `step` is the number of steps so far.

        Raises a NotFinite that names the first step whose loss was not finite and the term that
        caused it; a term of weight 0 may have any value. Raises ValueError if the names of the
        terms change.
        """
        if not self._steps:
            return
        self.terms = self.terms or tuple(self._steps[0][0])
        for values, _, _ in self._steps:
            if tuple(values) != self.terms:
                raise ValueError(
                    f"the names of the loss terms changed from {self.terms} to {(*values,)}"
                )
        flat = torch.stack([value for values, _, _ in self._steps for value in values.values()])
        rows = flat.reshape(-1, len(self.terms)).tolist()  # (steps, terms)
        first = step - len(rows) + 1
        for i, (row, (_, weights, images)) in enumerate(zip(rows, self._steps, strict=True)):
            loss, terms = 0.0, dict(zip(self.terms, row, strict=True))
            for name, value in terms.items():
                if weight := weights.get(name, 1.0):
                    if not math.isfinite(weight * value):
                        raise NotFinite(weight * value, first + i, name)
                    loss += weight * value
            self._weighted |= dict.fromkeys(weights)
            term_weights = {f"{name}_weight": weights.get(name, 1.0) for name in self._weighted}
            for sums in (self._window, self._epoch):
                sums.add({"loss": loss, **terms, **term_weights}, images)
        self._steps = []

    def close_epoch(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Return the means of the terms and of each vector over all images that were fetched since
        the last call, and reset them. Without images, the means are empty."""
        means, images = self._epoch.means(), self._epoch.images
        per_dim = {
            name: (total / images).flatten().tolist() for name, total in self._per_dim.items()
        }
        self._epoch, self._per_dim = Sums(), {}
        return means, per_dim

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the arguments of `restore`, tensors and JSON values, of the fetched steps only."""
        tensors = {f"per_dim.{name}": total for name, total in self._per_dim.items()}
        for part, sums in (("window", self._window), ("epoch", self._epoch)):
            for name, total in sums.totals.items():  # tensors, because a JSON number cannot be NaN
                tensors[f"{part}.{name}"] = torch.tensor(total, dtype=torch.float64)
        metadata = {"terms": [*self.terms], "weighted": [*self._weighted]}
        images = {"window": self._window.images, "epoch": self._epoch.images}
        return tensors, {**metadata, "images": images, "per_dim": [*self._per_dim]}

    def restore(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], device: torch.device
    ) -> None:
        """Restore what `state` has returned."""
        self.terms, self._weighted = tuple(metadata["terms"]), dict.fromkeys(metadata["weighted"])
        names = ["loss", *self.terms, *(f"{name}_weight" for name in self._weighted)]
        for part, sums in (("window", self._window), ("epoch", self._epoch)):
            sums.images = int(metadata["images"][part])
            stored = [(name, tensors.get(f"{part}.{name}")) for name in names]  # in order
            sums.totals = {name: float(total) for name, total in stored if total is not None}
        per_dim = {name: tensors[f"per_dim.{name}"] for name in metadata["per_dim"]}
        self._per_dim = {name: total.to(device) for name, total in per_dim.items()}


class NotFinite(RunFailed):
    """The loss of `step`, counted from 1, is NaN or infinite because of one of its terms."""

    def __init__(self, value: float, step: int, term: str) -> None:
        message = f"the loss became {value} at step {step} (its term {term!r})"
        super().__init__(message, hint="a smaller --lr")
        self.step = step
