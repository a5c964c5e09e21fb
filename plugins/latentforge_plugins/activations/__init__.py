"""`activations`: what the layers of a classifier make of each class, and how features lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from latentforge import Count, ExplorerSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


@dataclass(frozen=True)
class ActivationsConfig:
    """`layers` are names of the model's layers(), by default those that pool; of each the first
    `channels` are drawn, for the `classes` of the `split`, by default the first 20. `features`
    histograms, of the last convolution averaged to `grid` x `grid` cells."""

    layers: tuple[str, ...] = ()
    classes: tuple[Count, ...] = ()
    channels: Annotated[int, Ge(1), Le(32)] = 8
    features: Annotated[int, Ge(1), Le(16)] = 16
    grid: Size = 2
    split: str = "test"


def explore(context: ExploreContext, config: ActivationsConfig) -> Findings:
    from .maps import activations

    return activations(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="activations",
        summary="Mean activation maps of a classifier by class, and histograms of its features",
        explore=explore,
        config=ActivationsConfig,
        needs={"classify", "layers"},
        labels=True,
    )
