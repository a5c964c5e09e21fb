"""k-nearest-neighbour classification of latent codes."""

from __future__ import annotations

from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.errors import UsageError
from latentforge.io.text import are, counted
from latentforge.metrics import MeanPerImage
from latentforge.neighbours import majority, topk
from latentforge_plugins.measures import codes_of

from .config import KnnConfig


class KnnAccuracy(MeanPerImage):
    """Predicts the majority class of the k nearest training codes by Euclidean distance; in a tie
    the first class wins. An image that is itself a training image is not its own neighbour."""

    def __init__(self, config: KnnConfig, context: EvaluateContext) -> None:
        super().__init__("knn_accuracy", self.correct)
        train = context.images("train")
        self.queries_are_rows = context.images(context.split).same_as(train)
        self.k, available = config.k, len(train) - self.queries_are_rows
        if self.k > available:
            raise UsageError(
                f"knn_accuracy.k is {self.k}, but only {counted(available, 'training image')} "
                f"{are(available)} available",
                hint="--set knn_accuracy.k=1, or use more images",
            )
        self.codes, self.labels = codes_of(context, train).double(), train.y.cpu()
        self.classes = len(context.data.classes)
        self.protocol = (
            f"share of images, from 0 to 1, whose class most of the k={self.k} nearest posterior "
            f"means of the train split have, Euclidean, {len(train)} images"
            + (", the image itself left out" if self.queries_are_rows else "")
        )

    def correct(self, seen: Seen) -> Tensor:
        own = seen.batch.index.cpu() if self.queries_are_rows else None
        _, nearest = topk(seen.z.flatten(1).cpu().double(), self.codes, self.k, own=own)
        return majority(self.labels[nearest], self.classes) == seen.batch.y.cpu()
