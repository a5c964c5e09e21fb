"""Options of class objective."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Lt

from latentforge import Count, Size


@dataclass(frozen=True)
class ClassConfig:
    """`n` requests for class `target`, by its number from 0, or for all classes in turn; one is met
    when the classifier's p(class | x) reaches `threshold`."""

    n: Size = 10
    target: Count | None = None
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.9
