"""`interpolate`: decode the codes between two images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from latentforge import Count, ExplorerSpec, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class InterpolateConfig:
    """`images` are two indices into the split; `classes` takes the first image of each class
    instead. `path` both draws the straight line above the arc."""

    images: tuple[Count, Count] = (0, 1)
    classes: tuple[Count, Count] | None = None
    steps: Annotated[int, Ge(2)] = 10
    path: Literal["linear", "spherical", "both"] = "both"
    split: str = "test"


def explore(context: ExploreContext, config: InterpolateConfig) -> Findings:
    from .walk import interpolate

    return interpolate(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="interpolate",
        summary="Decode N codes between two images, along a line or an arc",
        explore=explore,
        config=InterpolateConfig,
        needs={"encode", "decode"},
    )
