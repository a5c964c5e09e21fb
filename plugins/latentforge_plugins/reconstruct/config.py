"""Options of `reconstruct`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True)
class ReconstructConfig:
    """`n` is the number of images per row. The rows show images of all classes of the `split`, and
    the images of the whole split with the best and the worst reconstructions. They are ranked by
    the excess of the error over the smallest possible one: under a Bernoulli likelihood, over the
    entropy of the image itself; else by the squared error."""

    n: Annotated[int, Ge(1), Le(20)] = 10
    split: str = "test"
