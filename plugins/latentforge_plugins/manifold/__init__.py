"""Explorer `manifold`: decodes a regular grid over two latent dimensions or a principal plane."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import ManifoldConfig


def explore(context: ExploreContext, config: ManifoldConfig):
    from .plane import manifold

    return manifold(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="manifold",
        summary="Decode a regular grid over two latent dimensions or a principal plane",
        explore=explore,
        config=ManifoldConfig,
        needs={"encode", "decode"},
    )
