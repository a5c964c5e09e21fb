"""The measure `loss`: the training objective of the run, evaluated on a split."""

from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

PROTOCOL = "{}, terms weighted as at the end of training, any samples from one seed"
UNIT = "nats per image if the loss is a likelihood, else in the unit of the loss"


def build(config: Any, context: EvaluateContext):
    from .measure import LossOfRun, describe_unit

    return LossOfRun(context, PROTOCOL.format(describe_unit(context.loss)))


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="loss",
        summary="The run's training objective, model in evaluation mode",
        build=build,
        protocol=PROTOCOL.format(UNIT),
    )
