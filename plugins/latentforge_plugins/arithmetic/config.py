"""Options of `arithmetic`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Len, MinLen

from latentforge import Count


@dataclass(frozen=True)
class ArithmeticConfig:
    """Decodes z + s (mean code of class `plus` - mean code of class `minus`) for each s in
    `scales`. `images` are indices into the `split`; the default is four images of class `minus`,
    then four of other classes."""

    minus: Count = 0
    plus: Count = 1
    scales: Annotated[tuple[float, ...], MinLen(1)] = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
    images: Annotated[tuple[Count, ...], Len(1, 40)] | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        if self.minus == self.plus:
            raise ValueError(f"minus and plus are both class {self.plus}, so their difference is 0")
