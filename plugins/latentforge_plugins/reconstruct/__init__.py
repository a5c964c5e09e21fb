"""`reconstruct`: images over their reconstructions, as they come, the best and the worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from latentforge import ExplorerSpec, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class ReconstructConfig:
    """`n` images in a row: the first of the split, and the best and the worst of all of it."""

    n: Annotated[int, Ge(1), Le(20)] = 10
    split: str = "test"


def explore(context: ExploreContext, config: ReconstructConfig) -> Findings:
    from .reconstructions import reconstruct

    return reconstruct(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="reconstruct",
        summary="Images over their reconstructions: the first, the best and the worst",
        explore=explore,
        config=ReconstructConfig,
        needs={"encode", "decode"},
    )
