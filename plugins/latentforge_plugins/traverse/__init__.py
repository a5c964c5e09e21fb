"""Explorer `traverse`: decodes along each latent dimension, the most informative first."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import TraverseConfig


def explore(context: ExploreContext, config: TraverseConfig):
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
