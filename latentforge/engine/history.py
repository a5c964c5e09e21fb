"""What the steps of an epoch said, kept on the device until somebody reads it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentforge.contracts import Terms
from latentforge.errors import RunFailed


class History:
    """Collects each step's loss and terms; `read` fetches them in one transfer and averages.

    Reading a number from a device waits for it, so a step only keeps its tensors. A loss that is
    not finite is therefore noticed at the next read, which still knows its step.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []
        self._images: list[int] = []
        self._sums: list[float] = []
        self._count = 0

    def add(self, terms: Terms, total: Tensor, images: int) -> None:
        if not self.names:
            self.names = ("loss", *terms.values)
            self._sums = [0.0] * len(self.names)
        elif tuple(terms.values) != self.names[1:]:
            raise ValueError(
                f"the loss's terms changed from {self.names[1:]} to {(*terms.values,)}"
            )
        self._pending.append(total.detach())
        self._pending += [value.detach() for value in terms.values.values()]
        self._images.append(images)

    def read(self, step: int) -> dict[str, float]:
        """Means over the steps since the last read; `step` counts all steps up to now.

        Raises RunFailed with the first step whose loss or terms were not finite.
        """
        if not self._images:
            return {}
        width = len(self.names)
        rows = torch.stack(self._pending).reshape(-1, width).tolist()  # (steps, terms)
        first = step - len(rows) + 1
        sums = [0.0] * width
        for i, (row, images) in enumerate(zip(rows, self._images, strict=True)):
            for j, value in enumerate(row):
                if not math.isfinite(value):
                    raise RunFailed(
                        f"the loss became {value} at step {first + i} (its term {self.names[j]!r})",
                        remedy="a smaller --lr; LATENTFORGE_DEBUG=1 for the traceback",
                    )
                sums[j] += value * images
        count = sum(self._images)
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)]
        self._count += count
        self._pending, self._images = [], []
        return {name: total / count for name, total in zip(self.names, sums, strict=True)}

    def close_epoch(self) -> dict[str, float]:
        """Means over all images read since the last call."""
        means = {
            name: total / self._count for name, total in zip(self.names, self._sums, strict=True)
        }
        self._sums, self._count = [0.0] * len(self.names), 0
        return means
