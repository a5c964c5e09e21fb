"""`inpaint`: images whose known part is that of a given image."""

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
        summary="Complete images of which a part is hidden",
        build=build,
        config=InpaintConfig,
    )
