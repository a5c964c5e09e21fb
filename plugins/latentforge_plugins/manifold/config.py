"""Options of `manifold`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from latentforge import Count, Positive


@dataclass(frozen=True)
class ManifoldConfig:
    """The grid has `size` x `size` codes. The `plane` is spanned by two `dims`, or by the two
    principal directions of the training codes. With "auto" and more than two dimensions, it is
    spanned by the two dimensions with the largest KL or, if the KL is not known for each dimension,
    with the largest variance of the codes. If the model has no prior, it is spanned by the
    principal directions, and for a learnt prior by those of its samples. With `spacing="linear"`,
    dims of a model with the prior N(0, I) are covered from -`reach` to `reach`, and other axes from
    the 1 % to the 99 % quantile of the codes or of the prior's samples. With "quantile", each row
    and each column represents the same fraction of the prior or of the codes."""

    size: Annotated[int, Ge(2), Le(40)] = 21
    reach: Positive = 3.0
    spacing: Literal["linear", "quantile"] = "linear"
    plane: Literal["auto", "dims", "principal"] = "auto"
    dims: tuple[Count, Count] | None = None

    def __post_init__(self) -> None:
        if self.dims and self.dims[0] == self.dims[1]:
            raise ValueError(f"dims must be two different dimensions, got {list(self.dims)}")
        # An option that differs from its default was set by the user, but would have no effect.
        default = type(self)
        if self.plane == "principal" and self.dims:
            raise ValueError("dims and plane='principal' exclude each other")
        if self.reach != default.reach and (self.plane == "principal" or self.spacing != "linear"):
            raise ValueError("reach needs a plane of dims and spacing='linear'")
