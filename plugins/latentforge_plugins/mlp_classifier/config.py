"""Options of `mlp-classifier`."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class MlpClassifierConfig:
    """`layers` is the number of hidden layers (linear and ReLU) between the first and last layer.
    All of them have the same `width`."""

    layers: Count = 2
    width: Size = 128
