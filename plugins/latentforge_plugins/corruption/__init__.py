"""Explorer `corruption`: images with increasing noise, and the model's outputs for them."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import CorruptionConfig


def explore(context: ExploreContext, config: CorruptionConfig):
    from .noise import corruption

    return corruption(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="corruption",
        summary="Images with increasing noise, and the model's predictions or reconstructions",
        explore=explore,
        config=CorruptionConfig,
    )
