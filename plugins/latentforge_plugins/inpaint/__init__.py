"""`inpaint`: images whose known part is that of a given image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import ObjectiveSpec, hookimpl

from .config import InpaintConfig

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext, Objective


def build(config: InpaintConfig, context: ExploreContext) -> Objective:
    from .objective import Inpaint

    return Inpaint(config, context)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="inpaint",
        summary="Complete images of which a part is hidden",
        build=build,
        config=InpaintConfig,
    )
