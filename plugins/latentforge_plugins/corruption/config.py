"""Options of `corruption`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MaxLen, MinLen

from latentforge import Count, Size


@dataclass(frozen=True)
class CorruptionConfig:
    """`images` are indices into the `split`; they are shown at `steps` noise levels from 0 to 1.
    The metrics are computed on at most `n` images, sampled from the split."""

    images: Annotated[tuple[Count, ...], MinLen(1), MaxLen(10)] = (0, 1, 2, 3)
    steps: Annotated[int, Ge(2), Le(20)] = 11
    n: Size = 2000
    split: str = "test"
