"""Measures of how well posterior means predict labels: `knn_accuracy` and `probe_accuracy`."""

from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

from .config import KnnConfig


def build_knn(config: KnnConfig, context: EvaluateContext):
    from .neighbours import KnnAccuracy

    return KnnAccuracy(config, context)


def build_probe(config: Any, context: EvaluateContext):
    from .probe import ProbeAccuracy

    return ProbeAccuracy(context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="knn_accuracy",
        summary="Accuracy of a k-nearest-neighbour classifier of the codes",
        build=build_knn,
        protocol="share of images, from 0 to 1, by the nearest posterior means of the train split",
        config=KnnConfig,
        needs={"encode"},
        labels=True,
        default=False,
        better="higher",
    )
    yield MeasureSpec(
        name="probe_accuracy",
        summary="Accuracy of a linear classifier of the codes",
        build=build_probe,
        protocol="share of images, from 0 to 1, by a linear classifier of the posterior means",
        needs={"encode"},
        labels=True,
        default=False,
        better="higher",
    )
