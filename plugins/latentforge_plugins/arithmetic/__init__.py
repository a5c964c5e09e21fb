"""`arithmetic`: add the difference of two classes' mean codes to the codes of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ExplorerSpec, hookimpl

from .config import ArithmeticConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


def explore(context: ExploreContext, config: ArithmeticConfig) -> Findings:
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
    )
