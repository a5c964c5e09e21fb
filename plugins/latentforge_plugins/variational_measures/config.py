"""Options of the variational measures."""

from dataclasses import dataclass

from latentforge import Positive


@dataclass(frozen=True)
class ActiveUnitsConfig:
    """`threshold` is the variance above which a dimension is considered active."""

    threshold: Positive = 0.01
