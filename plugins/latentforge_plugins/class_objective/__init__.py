"""`class`: images that a classifier takes for one of a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Lt

from latentforge import Count, ObjectiveSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext, Objective


@dataclass(frozen=True)
class ClassConfig:
    """`n` requests for class `target`, by its number from 0, or for all classes in turn; one is met
    when the classifier's p(class | x) reaches `threshold`."""

    n: Size = 10
    target: Count | None = None
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.9


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
