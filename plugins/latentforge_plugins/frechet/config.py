"""Options of `fid`."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class FidConfig:
    """`layer` is one of the classifier's layers(), by default the last one with weights; maps are
    averaged to `grid` x `grid` cells. `images` is the number of images in each set, or 0 for the
    largest possible number."""

    layer: str = ""
    grid: Size = 2
    images: Count = 0
