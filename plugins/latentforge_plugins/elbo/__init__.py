"""The losses of variational autoencoders: `elbo`, `beta-elbo`, `beta-tc` and `iwae`."""

from collections.abc import Set

from latentforge import DataSpec, LossSpec, hookimpl
from latentforge_plugins.reconstruction import needs as needs_of_likelihood
from latentforge_plugins.reconstruction import ranges

from .config import BetaElboConfig, BetaTcConfig, ElboConfig, IwaeConfig


def needs(config: ElboConfig) -> Set[str]:
    return {*needs_of_likelihood(config), "variational"}


def needs_densities(config: BetaTcConfig) -> Set[str]:
    return {*needs_of_likelihood(config), "kl", "log_prob", "diagonal_gaussian"}


def needs_weights(config: IwaeConfig) -> Set[str]:
    return {*needs_of_likelihood(config), "prior", "log_prob"}


def build_elbo(config: ElboConfig, data: DataSpec):
    from .loss import Elbo

    return Elbo(config, data)


def build_beta_elbo(config: BetaElboConfig, data: DataSpec):
    from .loss import BetaElbo

    return BetaElbo(config, data)


def build_beta_tc(config: BetaTcConfig, data: DataSpec):
    from .total_correlation import BetaTc

    return BetaTc(config, data)


def build_iwae(config: IwaeConfig, data: DataSpec):
    from .importance_weighted import Iwae

    return Iwae(config, data)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="elbo",
        summary="-ELBO in nats per image: -log p(x|z) + KL, one sample of z",
        build=build_elbo,
        config=ElboConfig,
        needs=needs,
        ranges=ranges,
    )
    yield LossSpec(
        name="beta-elbo",
        summary="-ELBO with weighted KL: constant, warm-up or cyclic beta, or a target capacity",
        build=build_beta_elbo,
        config=BetaElboConfig,
        needs=needs,
        ranges=ranges,
    )
    yield LossSpec(
        name="beta-tc",
        summary="-ELBO with the KL split into three parts; beta weights the total correlation",
        build=build_beta_tc,
        config=BetaTcConfig,
        needs=needs_densities,
        ranges=ranges,
    )
    yield LossSpec(
        name="iwae",
        summary="-log of the mean importance weight of K samples of z, a tighter bound than elbo",
        build=build_iwae,
        config=IwaeConfig,
        needs=needs_weights,
        ranges=ranges,
    )
