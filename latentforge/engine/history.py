"""What the steps of an epoch said, kept on the device until somebody reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from latentforge.contracts import Terms
from latentforge.errors import RunFailed


class History:
    """Collects each step's terms; `read` fetches them in one transfer and averages.

    Reading a number from a device waits for it, so a step only keeps its tensors. A loss that is
    not finite is therefore noticed at the next read, which still knows its step.
    """

    def __init__(self) -> None:
        self.terms: tuple[str, ...] = ()
        self._weighted: dict[str, None] = {}  # the terms that were ever given a weight, in order
        # of each step since the last read: its terms, detached, their weights, its images
        self._steps: list[tuple[dict[str, Tensor], Mapping[str, float], int]] = []
        self._epoch: dict[str, float] = {}  # sums over the epoch's images
        self._epoch_images = 0
        self._per_dim: dict[str, Tensor] = {}  # the same of each vector, on its device

    def add(self, terms: Terms, images: int) -> None:
        values = {name: value.detach() for name, value in terms.values.items()}
        self._steps.append((values, dict(terms.weights), images))
        for name, vector in terms.per_dim.items():
            if name in self._per_dim:
                self._per_dim[name].add_(vector, alpha=images)
            else:
                self._per_dim[name] = vector * images

    def read(self, step: int) -> dict[str, float]:
        """Means over the steps since the last read, of the loss, its terms and, as `<term>_weight`,
        the weights it gave them; `step` counts all steps up to now.

        Raises RunFailed with the first step whose loss was not finite, and the term that made it
        so; a term of weight 0 may be anything. ValueError when the terms are not always the same.
        """
        if not self._steps:
            return {}
        self.terms = self.terms or tuple(self._steps[0][0])
        for values, _, _ in self._steps:
            if tuple(values) != self.terms:
                raise ValueError(f"the loss's terms changed from {self.terms} to {(*values,)}")
        flat = torch.stack([value for values, _, _ in self._steps for value in values.values()])
        rows = flat.reshape(-1, len(self.terms)).tolist()  # (steps, terms)
        first = step - len(rows) + 1
        for _, weights, _ in self._steps:
            self._weighted |= dict.fromkeys(weights)
        sums = dict.fromkeys(("loss", *self.terms), 0.0)
        sums |= dict.fromkeys((f"{name}_weight" for name in self._weighted), 0.0)
        count = 0
        for i, (row, (_, weights, images)) in enumerate(zip(rows, self._steps, strict=True)):
            for name, value in zip(self.terms, row, strict=True):
                if weight := weights.get(name, 1.0):
                    if not math.isfinite(weight * value):
                        raise not_finite(weight * value, first + i, name)
                    sums["loss"] += weight * value * images
                sums[name] += value * images
            for name in self._weighted:
                sums[f"{name}_weight"] += weights.get(name, 1.0) * images
            count += images
        for name, total in sums.items():
            self._epoch[name] = self._epoch.get(name, 0.0) + total
        self._epoch_images += count
        self._steps = []
        return {name: total / count for name, total in sums.items()}

    def close_epoch(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Means over all images read since the last call, of the terms and of each vector; empty
        when there were none."""
        count = self._epoch_images
        means = {name: total / count for name, total in self._epoch.items()}
        per_dim = {
            name: (total / count).flatten().tolist() for name, total in self._per_dim.items()
        }
        self._epoch, self._epoch_images, self._per_dim = {}, 0, {}
        return means, per_dim


def not_finite(value: float, step: int, term: str) -> RunFailed:
    return RunFailed(
        f"the loss became {value} at step {step} (its term {term!r})",
        remedy="a smaller --lr",
    )
