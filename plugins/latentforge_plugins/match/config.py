"""Options of match."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from latentforge import Count, Positive


@dataclass(frozen=True)
class MatchConfig:
    """`images` are indices into the `split`, one request each. `features` is "pixels" or one of the
    classifier's layers(). A request is satisfied below `tolerance`, a mean squared distance; the
    smaller it is, the lower the relative weight of the search's prior."""

    images: Annotated[tuple[Count, ...], MinLen(1)] = (0,)
    split: str = "test"
    features: str = "pixels"
    tolerance: Positive = 0.01
