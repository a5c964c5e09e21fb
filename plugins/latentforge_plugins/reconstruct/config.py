"""Options of `reconstruct`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True)
class ReconstructConfig:
    """`n` is the number of images per row. The rows show the first images of the `split`, and the
    images of the whole split with the best and the worst reconstructions."""

    n: Annotated[int, Ge(1), Le(20)] = 10
    split: str = "test"
