"""`class`: images that a classifier takes for one of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ObjectiveSpec, hookimpl

from .config import ClassConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext, Objective


def build(config: ClassConfig, context: ExploreContext) -> Objective:
    from .objective import ClassObjective

    return ClassObjective(config, context)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="class",
        summary="Images that a classifier takes for one of a class",
        build=build,
        config=ClassConfig,
        roles={"classifier": {"classify"}},
    )
