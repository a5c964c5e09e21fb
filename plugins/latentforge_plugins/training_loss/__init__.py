"""The measure `loss`: the training objective of the run, evaluated on a split."""

from collections.abc import Mapping
from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext, Seen


class LossOfRun:
    """The mean loss over images. The mean of each batch is weighted by its number of images."""

    def __init__(self, context: EvaluateContext) -> None:
        self.loss, self.step = context.loss, context.step
        self.total = 0.0
        self.count = 0

    def update(self, seen: Seen) -> None:
        images = len(seen.batch.index)
        self.total += float(self.loss(seen.model, seen.batch, self.step).total()) * images
        self.count += images

    def compute(self) -> Mapping[str, float]:
        return {"loss": self.total / self.count}


def build(config: Any, context: EvaluateContext) -> LossOfRun:
    return LossOfRun(context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="loss",
        summary="The run's training objective, model in evaluation mode",
        build=build,
        protocol="nats per image, terms weighted as at the end of training, one seeded sample of z",
    )
