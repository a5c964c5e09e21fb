"""Options of `match`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from latentforge import Count, Positive


@dataclass(frozen=True)
class MatchConfig:
    """`images` are indices into the `split`; each image is one request. `features` is "pixels" or
    one of the classifier's layers(). A request is satisfied if its mean squared distance is below
    `tolerance`. A smaller tolerance lowers the relative weight of the prior in a search."""

    images: Annotated[tuple[Count, ...], MinLen(1)] = (0,)
    split: str = "test"
    features: str = "pixels"
    tolerance: Positive = 0.01
