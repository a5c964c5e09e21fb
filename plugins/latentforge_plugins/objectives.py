"""Shared parts of the built-in objectives: the selection of target images, and a cache that lets
`satisfied` reuse what `score` has computed for the same x."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from latentforge.contracts import Batch, ExploreContext
from latentforge.errors import UsageError
from latentforge.io.text import counted

from .measures import select_random


class CachedCall:
    """Caches `compute(x)`: `score` calls `evaluate`, and `satisfied` calls `reuse` for the same x.
    A search calls both at every step. `evaluate(x)` is differentiable, `reuse(x)` is detached."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self.compute = compute
        self._last: tuple[Tensor, int, Tensor] | None = None

    def evaluate(self, x: Tensor) -> Tensor:
        value = self.compute(x)
        # `_version` detects in-place changes of x; inference tensors have no version
        self._last = None if x.is_inference() else (x, x._version, value.detach())
        return value

    def reuse(self, x: Tensor) -> Tensor:
        if self._last and x is self._last[0] and x._version == self._last[1]:
            return self._last[2]
        return self.compute(x).detach()


def select_images(
    context: ExploreContext, split: str, indices: Sequence[int], count: int = 0
) -> Batch:
    """Return the images of a split at `indices`. If `indices` is empty, return `count` random
    images, the same in every run. Raises UsageError for an index outside the split, and if `count`
    is larger than the split."""
    images = context.images(split)
    if indices:
        return images.batch_at(indices)
    if count > len(images):
        raise UsageError(
            f"n is {count}, but the split {split!r} has only {counted(len(images), 'image')}",
            hint=f"--set n={len(images)}",
        )
    return images.batch(select_random(count, len(images), images.device).nonzero().flatten())


def describe_images(batch: Batch, split: str, classes: Sequence[str]) -> list[str]:
    """Return names such as `test image 17`, or `test image 17 (class 5)` if there are labels."""
    names = [f"{split} image {i}" for i in batch.index.tolist()]
    if batch.y is None:
        return names
    labels = [classes[label] for label in batch.y.tolist()]
    return [f"{name} (class {label})" for name, label in zip(names, labels, strict=True)]
