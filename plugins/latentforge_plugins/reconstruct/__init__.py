"""Explorer `reconstruct`: the first, best and worst images above their reconstructions."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import ReconstructConfig


def explore(context: ExploreContext, config: ReconstructConfig):
    from .reconstructions import reconstruct

    return reconstruct(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="reconstruct",
        summary="Images above their reconstructions: the first, the best and the worst",
        explore=explore,
        config=ReconstructConfig,
        needs={"encode", "decode"},
        conditional=True,
    )
