"""Options of the objective `class`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Lt

from latentforge import Count, Size


@dataclass(frozen=True)
class ClassConfig:
    """Makes `n` requests for class number `target` or, by default, for all classes in turn, or for
    the class of the condition, if there is one. A request is satisfied if the classifier's
    p(class | x) is at least `threshold`."""

    n: Size = 10
    target: Count | None = None
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.9
