"""`fid`: the Fréchet distance of images on a classifier's features, beside its floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import MeasureSpec, hookimpl

from .config import FidConfig

if TYPE_CHECKING:
    from latentforge.contracts import EvaluateContext, Measure


def build(config: FidConfig, context: EvaluateContext) -> Measure:
    from .measure import Fid

    return Fid(config, context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="fid",
        summary="Fréchet distance of samples and reconstructions on a classifier's features",
        build=build,
        protocol="Fréchet distance of Gaussian fits to a classifier's features",
        config=FidConfig,
        needs={"encode", "decode"},
        roles={"classifier": {"classify", "layers"}},
        default=False,
    )
