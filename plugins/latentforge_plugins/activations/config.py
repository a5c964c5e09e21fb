"""Options of `activations`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from latentforge import Count, Size


@dataclass(frozen=True)
class ActivationsConfig:
    """`layers` are names from the model's layers(); the default is its pooling layers. The first
    `channels` channels of each layer are drawn for each of the `classes` in the `split`, by default
    for the first 20. `features` is the number of features with a histogram; features are the output
    of the last convolution, averaged to `grid` x `grid` cells."""

    layers: tuple[str, ...] = ()
    classes: tuple[Count, ...] = ()
    channels: Annotated[int, Ge(1), Le(32)] = 8
    features: Annotated[int, Ge(1), Le(16)] = 16
    grid: Size = 2
    split: str = "test"
