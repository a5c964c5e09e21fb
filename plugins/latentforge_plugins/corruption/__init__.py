"""`corruption`: images under growing noise, and what the model still makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import CorruptionConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: CorruptionConfig) -> Findings:
    from .noise import corruption

    return corruption(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="corruption",
        summary="Images under growing noise, and what the model still makes of them",
        explore=explore,
        config=CorruptionConfig,
    )
