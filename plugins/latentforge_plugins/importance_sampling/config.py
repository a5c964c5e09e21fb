"""Options of importance sampling."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class NllConfig:
    """`samples` of z for each image; `images` of the split, drawn at random, 0 for all."""

    samples: Size = 1000
    images: Count = 0
