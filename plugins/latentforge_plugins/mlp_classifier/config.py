"""Options of mlp classifier."""

from dataclasses import dataclass

from latentforge import Count, Size


@dataclass(frozen=True)
class MlpClassifierConfig:
    """`layers` of linear and ReLU, all of the same `width`, between the first and the last one."""

    layers: Count = 2
    width: Size = 128
