"""`MeanPerImage`, the base of most measures: one number per image, averaged over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from latentforge.contracts import Seen


class MeanPerImage:
    """The mean of `per_image(seen)`, a tensor (B,), over all images of a split."""

    def __init__(self, name: str, per_image: Callable[[Seen], Tensor]) -> None:
        self.name = name
        self.per_image = per_image
        self.total = 0.0
        self.count = 0

    def update(self, seen: Seen) -> None:
        values = self.per_image(seen).float()
        self.total += float(values.sum())  # batch sums in float32, the total in float64
        self.count += len(values)

    def compute(self) -> Mapping[str, float]:
        return {self.name: self.total / self.count}
