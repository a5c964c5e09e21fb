"""`fid`: the Fréchet distance of images on a classifier's features, beside its floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentforge import Count, MeasureSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import EvaluateContext, Measure


@dataclass(frozen=True)
class FidConfig:
    """`layer` is one of the classifier's layers(), by default the last one with weights; maps are
    averaged to `grid` x `grid`. `images` on each side, 0 for as many as there are."""

    layer: str = ""
    grid: Size = 2
    images: Count = 0


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
