from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from latentforge import MeasureSpec, hookimpl

LATENTFORGE_API = 2


@dataclass(frozen=True)
class MigConfig:
    """`bins` is the number of bins of equal width for each code dimension and numeric factor."""

    bins: Annotated[int, Ge(2)] = 20


def build(config, context):
    from .measure import InformationGap

    return InformationGap(config, context)


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="mig",
        summary="Mutual information gap of the factors",
        build=build,
        config=MigConfig,
        protocol="share of each factor's entropy, mean over the factors",
        needs={"encode"},
        factors=True,
        default=False,
        better="higher",
    )
