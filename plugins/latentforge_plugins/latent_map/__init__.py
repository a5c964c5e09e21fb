"""Explorer `latent-map`: the codes of a split on a plane, coloured by class or by a factor."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import LatentMapConfig


def explore(context: ExploreContext, config: LatentMapConfig):
    from .mapping import latent_map

    return latent_map(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="latent-map",
        summary="The codes of a split on a plane: directly, by PCA, t-SNE or PaCMAP",
        explore=explore,
        config=LatentMapConfig,
        needs={"encode"},
        conditional=True,
    )
