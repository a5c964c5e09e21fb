"""Measure `fid`: Fréchet distances of images in the feature space of a classifier."""

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext

from .config import FidConfig


def build(config: FidConfig, context: EvaluateContext):
    from .measure import Fid

    return Fid(config, context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="fid",
        summary="Fréchet distance of samples and reconstructions in a classifier's feature space",
        build=build,
        protocol="Fréchet distance of Gaussian fits to a classifier's features",
        config=FidConfig,
        needs={"generate"},
        roles={"classifier": {"classify", "layers"}},
        default=False,
    )
