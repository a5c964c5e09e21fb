"""Options of importance sampling."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class NllConfig:
    """`samples` is the number of samples of z per image. `images` is the number of images, selected
    at random from the split, or 0 for all."""

    samples: Size = 1000
    images: Count = 0
