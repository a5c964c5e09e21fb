"""`traverse`: decode along each latent dimension in turn, the most informative ones first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import TraverseConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: TraverseConfig) -> Findings:
    from .dimensions import traverse

    return traverse(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="traverse",
        summary="Decode along each latent dimension, ordered by its KL",
        explore=explore,
        config=TraverseConfig,
        needs={"encode", "decode"},
        optional_roles={"other": {"encode", "decode"}},
    )
