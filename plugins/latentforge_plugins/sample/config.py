"""Options of `sample`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from latentforge import Size

SourceName = Literal["prior", "gaussian", "mixture", "aggregate"]


@dataclass(frozen=True)
class SampleConfig:
    """`sources` are the compared sources of codes: prior is the model's prior; gaussian and mixture
    are a Gaussian and a mixture of `components` Gaussians fitted to the training codes; aggregate
    samples the posteriors of random training images. Each source gives `n` samples, and the first
    `rows` x `columns` are shown. A conditional model without a class (`condition`) gives samples of
    all classes in turn; then each class has a row."""

    sources: Annotated[tuple[SourceName, ...], MinLen(1)] = ("prior", "mixture")
    n: Annotated[int, Ge(2), Le(10_000)] = 1000
    columns: Annotated[Size, Le(30)] = 12
    rows: Annotated[Size, Le(30)] = 3
    components: Annotated[Size, Le(200)] = 10
