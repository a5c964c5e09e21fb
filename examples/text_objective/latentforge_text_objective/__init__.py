"""The objective `text`: images that match a description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import MinLen

from latentforge import ObjectiveSpec, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext, Objective


@dataclass(frozen=True)
class TextConfig:
    """`texts` are the requests. A request is satisfied if its score is at least `enough`: -1 nat
    is a deviation of 0.28 standard deviations in one quantity, or of 0.2 in each of two."""

    texts: Annotated[tuple[str, ...], MinLen(1)] = (
        "thick, leaning right",
        "thin, leaning left",
        "very bright upper half",
    )
    enough: float = -1.0


def build(config: TextConfig, context: ExploreContext | None) -> Objective:
    from .objective import TextObjective
    from .scorer import MomentScorer

    return TextObjective(config, MomentScorer.of(context))


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="text",
        summary="Images that match a text description",
        build=build,
        config=TextConfig,
    )
