"""`neighbours`: the training images whose codes are nearest to those of other images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from latentforge import Count, ExplorerSpec, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class NeighboursConfig:
    """`images` are indices into the split; `file`, an image file of the data's size, is asked for
    instead. `n` neighbours of each in the split train; `space` says where they are near."""

    images: Annotated[tuple[Count, ...], MinLen(1), MaxLen(20)] = (0, 1, 2, 3, 4)
    file: Path | None = None
    n: Annotated[int, Ge(1), Le(20)] = 10
    space: Literal["codes", "pixels", "both"] = "codes"
    split: str = "test"


def explore(context: ExploreContext, config: NeighboursConfig) -> Findings:
    from .nearest import neighbours

    return neighbours(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="neighbours",
        summary="The training images whose codes are nearest to that of an image",
        explore=explore,
        config=NeighboursConfig,
        needs={"encode"},
    )
