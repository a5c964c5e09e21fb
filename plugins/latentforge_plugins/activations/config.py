"""Options of `activations`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from latentforge import Count, Size


@dataclass(frozen=True)
class ActivationsConfig:
    """`layers` are names from the model's layers(), by default the pooling layers. The first
    `channels` of each layer are drawn, for these `classes` of the `split`, by default the first 20.
    `features` is the number of histograms, of the last convolution averaged to `grid` x `grid`
    cells."""

    layers: tuple[str, ...] = ()
    classes: tuple[Count, ...] = ()
    channels: Annotated[int, Ge(1), Le(32)] = 8
    features: Annotated[int, Ge(1), Le(16)] = 16
    grid: Size = 2
    split: str = "test"
