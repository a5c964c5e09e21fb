"""The mean of the training objective, and the standard error of its samples of z."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from latentforge.contracts import Batch, EvaluateContext, Seen
from latentforge.latent import select_rows
from latentforge_plugins.cross_entropy.loss import CrossEntropy

PARTS = 20  # of the first images, which are evaluated twice
PART = 50  # images of a part, at most


def describe_unit(loss: Any) -> str:
    """Return the unit of a loss. A loss that declares no likelihood, or None, may have any, such as
    that of a squared error, unless it is a cross-entropy."""
    is_likelihood = getattr(loss, "likelihood", None) is not None
    if is_likelihood or isinstance(loss, CrossEntropy):
        return "nats per image"
    return "in the unit of the loss, mean over images"


class LossOfRun:
    """The mean loss over images. The mean of each batch is weighted by its number of images.

    The loss draws its own samples, and gives one value for a batch. Its sampling error is therefore
    estimated from parts of the first batch: half of the mean square of the differences of two
    values is the variance of a part's value, and that of an image is larger by the part's size.
    """

    def __init__(self, context: EvaluateContext, protocol: str) -> None:
        self.loss, self.step = context.loss, context.step
        self.total, self.count = 0.0, 0
        self.variance = 0.0  # of an image's value, from sampling
        self.protocol = protocol

    def update(self, seen: Seen) -> None:
        images = len(seen.batch.index)
        self.total += self.value(seen.model, seen.batch) * images
        if not self.count:
            self.variance = self.sampling_variance(seen)
        self.count += images

    def value(self, model: nn.Module, batch: Batch) -> float:
        return float(self.loss(model, batch, self.step).total())

    def sampling_variance(self, seen: Seen) -> float:
        """The variance of an image's value; 0 for a loss that draws no samples."""
        images = len(seen.batch.x)
        size = min(PART, math.ceil(images / PARTS))  # parts have equal sizes
        squares = []
        for start in range(0, size * min(PARTS, images // size), size):
            rows = slice(start, start + size)
            model, part = select_rows(seen.model, rows), seen.batch.select(rows)
            squares.append((self.value(model, part) - self.value(model, part)) ** 2)
            if not squares[0]:
                return 0.0
        return size * sum(squares) / len(squares) / 2

    def compute(self) -> Mapping[str, float]:
        metrics = {"loss": self.total / self.count}
        if self.variance:
            metrics["loss_se"] = math.sqrt(self.variance / self.count)
            self.protocol += "; loss_se: standard error of the sampling"
        return metrics
