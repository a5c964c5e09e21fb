"""`arithmetic`: add the difference of two classes' mean codes to the codes of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Len, MinLen

from latentforge import Count, ExplorerSpec, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class ArithmeticConfig:
    """z + s (mean code of class `plus` - mean code of class `minus`) for each s of `scales`.
    `images` are indices into the split; without them, the first ones of class `minus`."""

    minus: Count = 0
    plus: Count = 1
    scales: Annotated[tuple[float, ...], MinLen(1)] = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
    images: Annotated[tuple[Count, ...], Len(1, 40)] | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        if self.minus == self.plus:
            raise ValueError(f"minus and plus are both class {self.plus}: their difference is 0")


def explore(context: ExploreContext, config: ArithmeticConfig) -> Findings:
    from .difference import arithmetic

    return arithmetic(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="arithmetic",
        summary="Add the difference of two classes' mean codes to images",
        explore=explore,
        config=ArithmeticConfig,
        needs={"encode", "decode"},
        labels=True,
        optional_roles={"classifier": {"classify"}},
    )
