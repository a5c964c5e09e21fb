"""Options of `neighbours`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from latentforge import Count


@dataclass(frozen=True)
class NeighboursConfig:
    """`images` are indices into the `split`, by default of five images of different classes; an
    image `file` of the data's size replaces them. For
    each image, the `n` nearest images of the train split are shown. Distances are computed in
    `space`."""

    images: Annotated[tuple[Count, ...], MinLen(1), MaxLen(20)] | None = None
    file: Path | None = None
    n: Annotated[int, Ge(1), Le(20)] = 10
    space: Literal["codes", "pixels", "both"] = "codes"
    split: str = "test"
