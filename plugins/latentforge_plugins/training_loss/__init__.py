"""The measure `loss`: the training objective of the run, evaluated on a split."""

from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

PROTOCOL = "nats per image, terms weighted as at the end of training, any samples from one seed"


def build(config: Any, context: EvaluateContext):
    from .measure import LossOfRun

    return LossOfRun(context, PROTOCOL)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="loss",
        summary="The run's training objective, model in evaluation mode",
        build=build,
        protocol=PROTOCOL,
    )
