"""Explorer `neighbours`: the training images whose codes are nearest to the codes of images."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import NeighboursConfig


def explore(context: ExploreContext, config: NeighboursConfig):
    from .nearest import neighbours

    return neighbours(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="neighbours",
        summary="The training images whose codes are nearest to the code of an image",
        explore=explore,
        config=NeighboursConfig,
        needs={"encode"},
        conditional=True,
    )
