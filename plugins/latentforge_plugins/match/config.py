"""Options of match."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from latentforge import Count, Positive


@dataclass(frozen=True)
class MatchConfig:
    """`images` are places in the split, a request each. `features` = pixels, or one of the
    classifier's layers(). A request is met below `tolerance`, a mean squared distance; the smaller
    it is, the less the search's prior counts."""

    images: Annotated[tuple[Count, ...], MinLen(1)] = (0,)
    split: str = "test"
    features: str = "pixels"
    tolerance: Positive = 0.01
