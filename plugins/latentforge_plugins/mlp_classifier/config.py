"""Options of mlp classifier."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class MlpClassifierConfig:
    """`layers` times linear and ReLU of the same `width`, between the first and the last layer."""

    layers: Count = 2
    width: Size = 128
