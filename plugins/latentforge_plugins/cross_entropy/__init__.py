"""The loss `cross-entropy` and the measures `accuracy` and `balanced_accuracy`."""

from typing import Any

from latentforge import DataSpec, LossSpec, MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext


def build_loss(config: Any, data: DataSpec):
    from .loss import CrossEntropy

    return CrossEntropy()


def build_accuracy(config: Any, context: EvaluateContext):
    from latentforge.metrics import MeanPerImage

    return MeanPerImage("accuracy", lambda seen: seen.logits.argmax(1) == seen.batch.y)


def build_balanced(config: Any, context: EvaluateContext):
    from .balanced import BalancedAccuracy

    return BalancedAccuracy(len(context.data.classes))


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
    yield MeasureSpec(
        name="balanced_accuracy",
        summary="Mean over the classes of the share of their images classified correctly",
        build=build_balanced,
        protocol="mean of the recall of each class with images, from 0 to 1, model in evaluation "
        "mode; majority_baseline: share of the most frequent class, the accuracy of always "
        "answering it",
        needs={"classify"},
        labels=True,
        default=False,
        better="higher",
    )
