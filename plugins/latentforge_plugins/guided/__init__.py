"""`guided`: move codes until what they decode to is what an objective asks for, such as a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import GuidedConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: GuidedConfig) -> Findings:
    from .guide import guide

    return guide(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="guided",
        summary="Move codes until the decoded images are what an objective asks for",
        explore=explore,
        config=GuidedConfig,
        needs={"encode", "decode"},
        optional_roles={"judge": {"classify"}},
        searches="class",
    )
