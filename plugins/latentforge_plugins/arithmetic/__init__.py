"""Explorer `arithmetic`: adds the difference of two classes' mean codes to codes of images."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import ArithmeticConfig


def explore(context: ExploreContext, config: ArithmeticConfig):
    from .difference import arithmetic

    return arithmetic(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="arithmetic",
        summary="Add the difference of two classes' mean codes to images",
        explore=explore,
        config=ArithmeticConfig,
        needs={"encode", "decode"},
        labels=True,
        optional_roles={"classifier": {"classify"}},
        conditional=True,  # which it refuses, with the reason
    )
