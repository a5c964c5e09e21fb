"""The objective `inpaint`: images that agree with a given image on its known part."""

from latentforge import ObjectiveSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import InpaintConfig


def build(config: InpaintConfig, context: ExploreContext):
    from .objective import Inpaint

    return Inpaint(config, context)


@hookimpl
def latentforge_objectives():
    yield ObjectiveSpec(
        name="inpaint",
        summary="Complete images that are partly hidden",
        build=build,
        config=InpaintConfig,
        ranges={"unit"},
    )
