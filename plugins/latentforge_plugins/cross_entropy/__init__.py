"""The loss `cross-entropy` and the measure `accuracy`."""

from typing import Any

from latentforge import DataSpec, LossSpec, MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext


def build_loss(config: Any, data: DataSpec):
    from .loss import CrossEntropy

    return CrossEntropy()


def build_accuracy(config: Any, context: EvaluateContext):
    from latentforge.metrics import MeanPerImage

    return MeanPerImage("accuracy", lambda seen: seen.logits.argmax(1) == seen.batch.y)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="cross-entropy",
        summary="-log p(class|x) in nats per image",
        build=build_loss,
        needs={"classify"},
        labels=True,
    )


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="accuracy",
        summary="Fraction of images whose most probable class is the label",
        build=build_accuracy,
        protocol="share of images, from 0 to 1, model in evaluation mode",
        needs={"classify"},
        labels=True,
        better="higher",
    )
