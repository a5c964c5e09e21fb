"""`sample`: decode codes drawn from the prior, from fitted densities, or from real codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le, MinLen

from latentforge import ExplorerSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings

Source = Literal["prior", "gaussian", "mixture", "aggregate"]


@dataclass(frozen=True)
class SampleConfig:
    """`sources` beside each other: the prior; a Gaussian, or a mixture of `components`, fitted to
    the training codes; the posterior of random training images. `n` samples of each, of which
    the first `rows` x `columns` are drawn."""

    sources: Annotated[tuple[Source, ...], MinLen(1)] = ("prior", "mixture")
    n: Annotated[int, Ge(2), Le(10_000)] = 1000
    columns: Annotated[Size, Le(30)] = 12
    rows: Annotated[Size, Le(30)] = 3
    components: Annotated[Size, Le(200)] = 10


def explore(context: ExploreContext, config: SampleConfig) -> Findings:
    from .draw import sample

    return sample(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="sample",
        summary="Decode random codes: prior, fitted Gaussian or mixture, aggregate posterior",
        explore=explore,
        config=SampleConfig,
        needs={"encode", "decode"},
        optional_roles={"classifier": {"classify"}},
    )
