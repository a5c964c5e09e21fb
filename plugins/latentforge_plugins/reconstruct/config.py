"""Options of reconstruct."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True)
class ReconstructConfig:
    """`n` images per row: the first of the `split`, and the best and the worst of all of it."""

    n: Annotated[int, Ge(1), Le(20)] = 10
    split: str = "test"
