"""Options of importance sampling."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class NllConfig:
    """`samples` of z per image; `images` of the split, selected at random, 0 for all."""

    samples: Size = 1000
    images: Count = 0
