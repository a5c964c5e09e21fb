"""Options of frechet."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class FidConfig:
    """`layer` is one of the classifier's layers(), by default the last one with weights; maps are
    averaged to `grid` x `grid`. `images` on each side, 0 for as many as there are."""

    layer: str = ""
    grid: Size = 2
    images: Count = 0
