"""`corruption`: images under growing noise, and what the model still makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le, MaxLen, MinLen

from latentforge import Count, ExplorerSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class CorruptionConfig:
    """`images` are indices into the split, drawn at `steps` levels of noise, 0 to 1. The figures
    are of `n` images at the most, drawn from the split."""

    images: Annotated[tuple[Count, ...], MinLen(1), MaxLen(10)] = (0, 1, 2, 3)
    steps: Annotated[int, Ge(2), Le(20)] = 11
    n: Size = 2000
    split: str = "test"


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
