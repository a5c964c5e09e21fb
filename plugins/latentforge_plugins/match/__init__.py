"""Objective `match`: images similar to a given one in pixels or in a classifier's features."""

from latentforge import ObjectiveSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import MatchConfig


def build(config: MatchConfig, context: ExploreContext):
    from .objective import Match

    return Match(config, context)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="match",
        summary="Images similar to a given one in pixels or in a classifier's features",
        build=build,
        config=MatchConfig,
        optional_roles={"classifier": {"classify", "layers"}},
    )
