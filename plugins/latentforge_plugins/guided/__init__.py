"""Explorer `guided`: moves codes until the decoded images satisfy an objective, such as a class."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import GuidedConfig


def explore(context: ExploreContext, config: GuidedConfig):
    from .guide import guide

    return guide(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="guided",
        summary="Move codes until the decoded images satisfy an objective",
        explore=explore,
        config=GuidedConfig,
        needs={"encode", "decode"},
        optional_roles={"judge": {"classify"}},
        searches="class",
    )
