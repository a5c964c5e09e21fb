"""k-nearest-neighbour classification of latent codes, with a bounded number of distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.errors import UsageError
from latentforge.metrics import MeanPerImage
from latentforge_plugins.measures import codes_of

if TYPE_CHECKING:
    from .config import KnnConfig

DISTANCES = 2**22  # at once, float64: 32 MB


class KnnAccuracy(MeanPerImage):
    """The majority of the k nearest training codes, Euclidean; between classes with as many votes
    the first one wins. An image that is itself a training image is not its own neighbour."""

    def __init__(self, config: KnnConfig, context: EvaluateContext) -> None:
        super().__init__("knn_accuracy", self.correct)
        train = context.images("train")
        self.among_them = context.images(context.split).same_as(train)
        self.k = config.k
        if self.k > len(train) - self.among_them:
            raise UsageError(
                f"knn_accuracy.k is {self.k}, and there are {len(train) - self.among_them} "
                "training images to choose from",
                remedy="--set knn_accuracy.k=1, or more images",
            )
        self.codes, self.labels = codes_of(context.model, train).double(), train.y.cpu()
        self.classes = len(context.data.classes)
        self.protocol = (
            f"share of images, from 0 to 1, whose class most of the k={self.k} nearest posterior "
            f"means of the train split have, Euclidean, {len(train)} images"
            + (", the image itself left out" if self.among_them else "")
        )

    def correct(self, seen: Seen) -> Tensor:
        codes, index = seen.z.flatten(1).cpu().double(), seen.batch.index.cpu()
        rows = max(1, DISTANCES // len(self.codes))
        parts = zip(codes.split(rows), index.split(rows), strict=True)
        predicted = torch.cat([self.vote(part, places) for part, places in parts])
        return predicted == seen.batch.y.cpu()

    def vote(self, codes: Tensor, index: Tensor) -> Tensor:
        """The class of each code (B, D): int64 (B,)."""
        distance = torch.cdist(codes, self.codes)  # (B, N)
        if self.among_them:
            distance[torch.arange(len(codes)), index] = torch.inf
        return majority(distance, self.labels, self.k, self.classes)


def majority(distance: Tensor, labels: Tensor, k: int, classes: int) -> Tensor:
    """The class that most of the k nearest have, int64 (B,): distances (B, N), labels (N,)."""
    nearest = distance.topk(k, largest=False).indices  # (B, k)
    votes = F.one_hot(labels[nearest], classes).sum(1)  # (B, classes)
    return votes.argmax(1)
