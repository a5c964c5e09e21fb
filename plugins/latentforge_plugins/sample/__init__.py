"""Explorer `sample`: decodes codes sampled from the prior, fitted densities or posteriors."""

from latentforge import ExplorerSpec, hookimpl
from latentforge.contracts import ExploreContext

from .config import SampleConfig


def explore(context: ExploreContext, config: SampleConfig):
    from .draw import sample

    return sample(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="sample",
        summary="Decode random codes: prior, fitted Gaussian or mixture, aggregate posterior",
        explore=explore,
        config=SampleConfig,
        needs={"generate"},
        optional_roles={"classifier": {"classify"}},
        conditional=True,
    )
