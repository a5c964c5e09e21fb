"""`manifold`: decode a regular grid over two latent dimensions, or over a plane of the codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import ManifoldConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: ManifoldConfig) -> Findings:
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
