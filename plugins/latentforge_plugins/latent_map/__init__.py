"""`latent-map`: the codes of a split on a plane, coloured by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import LatentMapConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: LatentMapConfig) -> Findings:
    from .mapping import latent_map

    return latent_map(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="latent-map",
        summary="The codes of a split on a plane: as they are, by PCA, t-SNE or PaCMAP",
        explore=explore,
        config=LatentMapConfig,
        needs={"encode"},
    )
