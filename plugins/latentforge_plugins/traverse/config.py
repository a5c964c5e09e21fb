"""Options of traverse."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from latentforge import Count, Size

Probability = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class TraverseConfig:
    """`steps` codes between two `quantiles` of the prior, or of the training codes if there is
    none, along at most `rows` dimensions. The others stay at the prior's mean (or the mean code),
    or at the code of image number `image` of the `split`."""

    rows: Annotated[Size, Le(64)] = 10
    steps: Annotated[int, Ge(2), Le(30)] = 11
    quantiles: tuple[Probability, Probability] = (0.02, 0.98)
    image: Count | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        if self.quantiles[0] >= self.quantiles[1]:
            raise ValueError("quantiles must go from a lower to a higher one")
