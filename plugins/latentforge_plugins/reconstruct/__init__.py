"""`reconstruct`: images over their reconstructions, as they come, the best and the worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import ReconstructConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


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
