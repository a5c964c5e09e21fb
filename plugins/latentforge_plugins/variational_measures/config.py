"""Options of variational measures."""

from __future__ import annotations

from dataclasses import dataclass

from latentforge import Positive


@dataclass(frozen=True)
class ActiveUnitsConfig:
    """`threshold` is the variance above which a dimension counts as active."""

    threshold: Positive = 0.01
