"""Options of `fsq`."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from latentforge import Size

LARGEST = 2**20  # entries of the codebook, which measures count one by one


@dataclass(frozen=True)
class FsqConfig:
    """Dimension i of each vector of a code is rounded to one of `levels[i]` values, so that the
    implied codebook has as many entries as the product of the `levels`: 256 by default. `width` is
    the number of channels of the first convolution; later layers have twice as many."""

    levels: tuple[Annotated[int, Ge(2)], ...] = (4, 4, 4, 4)
    width: Size = 16

    def __post_init__(self) -> None:
        if not self.levels or math.prod(self.levels) > LARGEST:
            raise ValueError(f"levels must be numbers whose product is at most {LARGEST}")
