"""`interpolate`: decode the codes between images, or between the mean codes of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le, MinLen

from latentforge import Count, ExplorerSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class InterpolateConfig:
    """`images` are indices into the split, two or more in a chain; `classes` takes the first image
    of each class instead, or its mean code with `between="class_means"`. `steps` of each leg.
    `path` both draws the straight line above the arc. The figures are means over `pairs` drawn
    pairs of images."""

    images: Annotated[tuple[Count, ...], MinLen(2)] = (0, 1)
    classes: Annotated[tuple[Count, ...], MinLen(2)] | None = None
    between: Literal["images", "class_means"] = "images"
    steps: Annotated[int, Ge(2), Le(1000)] = 10
    path: Literal["linear", "spherical", "both"] = "both"
    split: str = "test"
    pairs: Annotated[Size, Le(2000)] = 200

    def __post_init__(self) -> None:
        if self.between == "class_means" and self.classes is None:
            raise ValueError("between='class_means' needs classes, such as classes=[3, 8]")


def explore(context: ExploreContext, config: InterpolateConfig) -> Findings:
    from .walk import interpolate

    return interpolate(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="interpolate",
        summary="Decode N codes between images or class means, along a line or an arc",
        explore=explore,
        config=InterpolateConfig,
        needs={"encode", "decode"},
        optional_roles={"other": {"encode", "decode"}, "classifier": {"classify"}},
    )
