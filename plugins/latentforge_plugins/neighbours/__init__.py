"""`neighbours`: the training images whose codes are nearest to those of other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import NeighboursConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: NeighboursConfig) -> Findings:
    from .nearest import neighbours

    return neighbours(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="neighbours",
        summary="The training images whose codes are nearest to that of an image",
        explore=explore,
        config=NeighboursConfig,
        needs={"encode"},
    )
