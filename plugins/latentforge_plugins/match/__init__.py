"""`match`: images like a given one, in pixels or in what a classifier makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ObjectiveSpec, hookimpl

from .config import MatchConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext, Objective


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
