"""The bounds that a config field can name: `hidden: tuple[Size, ...] = (128,)`.

Light on purpose: hook modules import this. pydantic enforces the bounds when a run needs them.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

__all__ = ["Count", "Fraction", "NonNegative", "Positive", "Seed", "Size"]

Size = Annotated[int, Gt(0)]
"""A number of things that must be at least 1: a width, a batch size, epochs."""

Count = Annotated[int, Ge(0)]
"""A number of things that may be 0."""

Positive = Annotated[float, Gt(0)]
"""A finite number above 0: a learning rate, a standard deviation."""

NonNegative = Annotated[float, Ge(0)]
"""A finite number that may be 0: a weight, a decay."""

Fraction = Annotated[float, Ge(0), Lt(1)]
"""A share from 0 up to, not including, 1."""

Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
"""What a random generator starts from."""
