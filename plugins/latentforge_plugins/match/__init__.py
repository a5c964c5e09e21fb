"""`match`: images like a given one, in pixels or in what a classifier makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import MinLen

from latentforge import Count, ObjectiveSpec, Positive, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext, Objective


@dataclass(frozen=True)
class MatchConfig:
    """`images` are places in the split, a request each. `features` = pixels, or one of the
    classifier's layers(). A request is met below `tolerance`, a mean squared distance; the smaller
    it is, the less the search's prior counts."""

    images: Annotated[tuple[Count, ...], MinLen(1)] = (0,)
    split: str = "test"
    features: str = "pixels"
    tolerance: Positive = 0.01


def build(config: MatchConfig, context: ExploreContext) -> Objective:
    from .objective import Match

    return Match(config, context)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="match",
        summary="Images like a given one, in pixels or in a classifier's features",
        build=build,
        config=MatchConfig,
        optional_roles={"classifier": {"classify", "layers"}},
    )
