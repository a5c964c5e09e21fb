"""Options of `fid`."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class FidConfig:
    """`layer` is one of the classifier's layers(), by default the last one with weights; maps are
    averaged to `grid` x `grid` cells. `images` is the size of each set of images, 0 for the largest
    possible."""

    layer: str = ""
    grid: Size = 2
    images: Count = 0
