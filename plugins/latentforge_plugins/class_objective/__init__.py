"""Objective `class`: images that a classifier assigns to a class."""

from latentforge import ObjectiveSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import ClassConfig


def build(config: ClassConfig, context: ExploreContext):
    from .objective import ClassObjective

    return ClassObjective(config, context)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="class",
        summary="Images that a classifier assigns to a class",
        build=build,
        config=ClassConfig,
        roles={"classifier": {"classify"}},
    )
