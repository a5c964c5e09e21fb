"""Explorer `activations`: mean activation maps of a classifier by class, and feature histograms."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import ActivationsConfig


def explore(context: ExploreContext, config: ActivationsConfig):
    from .maps import activations

    return activations(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="activations",
        summary="Mean activation maps of a classifier by class, and histograms of its features",
        explore=explore,
        config=ActivationsConfig,
        needs={"classify", "layers"},
        labels=True,
    )
