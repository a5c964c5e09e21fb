"""`activations`: what the layers of a classifier make of each class, and how features lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import ActivationsConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: ActivationsConfig) -> Findings:
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
