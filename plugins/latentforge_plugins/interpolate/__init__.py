"""Explorer `interpolate`: decodes the codes between images, or between mean codes of classes."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import InterpolateConfig


def explore(context: ExploreContext, config: InterpolateConfig):
    from .walk import interpolate

    return interpolate(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="interpolate",
        summary="Decode a linear or spherical interpolation between images or class means",
        explore=explore,
        config=InterpolateConfig,
        needs={"encode", "decode"},
        optional_roles={"other": {"encode", "decode"}, "classifier": {"classify"}},
    )
