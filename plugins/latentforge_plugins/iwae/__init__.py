"""The loss `iwae`: an importance-weighted bound (Burda, Grosse and Salakhutdinov 2016)."""

from collections.abc import Set

from latentforge import DataSpec, LossSpec, hookimpl
from latentforge_plugins.reconstruction import needs as needs_of_likelihood
from latentforge_plugins.reconstruction import ranges

from .config import IwaeConfig


def needs(config: IwaeConfig) -> Set[str]:
    return {*needs_of_likelihood(config), "prior", "log_prob"}


def build(config: IwaeConfig, data: DataSpec):
    from .loss import Iwae

    return Iwae(config, data)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="iwae",
        summary="-log of the mean importance weight of K samples of z, a tighter bound than elbo",
        build=build,
        config=IwaeConfig,
        needs=needs,
        ranges=ranges,
    )
