"""Options of `inpaint`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Lt

from latentforge import Count, Size


@dataclass(frozen=True)
class InpaintConfig:
    """`mask` selects what is hidden: a half, a `box` of [top, left, height, width] pixels, or a
    random fraction `share` of the pixels. `images` are indices into the `split`; the default is `n`
    random images."""

    mask: Literal["lower", "upper", "left", "right", "box", "random"] = "lower"
    n: Size = 10
    images: tuple[Count, ...] = ()
    split: str = "test"
    box: tuple[Count, Count, Size, Size] | None = None
    share: Annotated[float, Gt(0), Lt(1)] = 0.5

    def __post_init__(self) -> None:
        if (self.mask == "box") != (self.box is not None):
            raise ValueError("mask=box and box=[top, left, height, width] require each other")
        # An option that differs from its default was set by the user, but would have no effect.
        default = type(self)
        if self.share != default.share and self.mask != "random":
            raise ValueError("share needs mask=random")
        if self.images and self.n not in (default.n, len(self.images)):
            raise ValueError("n and images exclude each other")
