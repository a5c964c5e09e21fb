"""Options of `traverse`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from latentforge import Count, Size

Probability = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class TraverseConfig:
    """Decodes `steps` codes between two `quantiles` of the prior (or of the training codes if the
    model has no prior) along each of at most `rows` dimensions. The other dimensions stay at the
    prior's mean (or the mean code), or at the code of image number `image` of the `split`."""

    rows: Annotated[Size, Le(64)] = 10
    steps: Annotated[int, Ge(2), Le(30)] = 11
    quantiles: tuple[Probability, Probability] = (0.02, 0.98)
    image: Count | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        if self.quantiles[0] >= self.quantiles[1]:
            raise ValueError("quantiles must be two numbers in ascending order")
