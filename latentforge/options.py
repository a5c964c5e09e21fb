"""Types for the fields of a config: `hidden: tuple[Size, ...] = (128,)`.

Hook modules import this, so it has no heavy imports. pydantic checks the bounds before a run.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

__all__ = ["Count", "FactorName", "Fraction", "NonNegative", "Positive", "Seed", "Size"]

Size = Annotated[int, Gt(0)]
"""An integer of at least 1: a width, a batch size, a number of epochs."""

Count = Annotated[int, Ge(0)]
"""An integer of at least 0."""

Positive = Annotated[float, Gt(0)]
"""A finite float above 0: a learning rate, a standard deviation."""

NonNegative = Annotated[float, Ge(0)]
"""A finite float of at least 0: a weight, a decay."""

Fraction = Annotated[float, Ge(0), Lt(1)]
"""A float of at least 0 and below 1."""

Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
"""The seed of a random generator."""

FACTOR_NAME = "the name of a factor of the data"

FactorName = Annotated[str, FACTOR_NAME]
"""The name of a factor of the data: "class" or another one. Other names are refused."""
