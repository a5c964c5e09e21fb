"""Options of `interpolate`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from latentforge import Count, Size


@dataclass(frozen=True)
class InterpolateConfig:
    """`images` are two or more indices into the `split`, in the order of the path, by default the
    first images of two classes. `classes` uses the first image of each class instead or, with
    `between="class_means"`, the mean code of the class. Each section between two images or means
    has `steps` codes. With `path="both"` the linear interpolation is shown above the spherical one.
    The cross-fade and confidence metrics are means over `pairs` random pairs of images."""

    images: Annotated[tuple[Count, ...], MinLen(2)] | None = None
    classes: Annotated[tuple[Count, ...], MinLen(2)] | None = None
    between: Literal["images", "class_means"] = "images"
    steps: Annotated[int, Ge(2), Le(1000)] = 10
    path: Literal["linear", "spherical", "both"] = "both"
    split: str = "test"
    pairs: Annotated[Size, Le(2000)] = 200

    def __post_init__(self) -> None:
        if self.between == "class_means" and self.classes is None:
            raise ValueError("between='class_means' needs classes, such as classes=[3, 8]")
