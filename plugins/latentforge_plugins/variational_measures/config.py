"""Options of variational measures."""

from dataclasses import dataclass

from latentforge import Positive


@dataclass(frozen=True)
class ActiveUnitsConfig:
    """`threshold` is the variance above which a dimension counts as active."""

    threshold: Positive = 0.01
