"""The loss `wae`: the Wasserstein autoencoder with MMD (Tolstikhin et al. 2018)."""

from collections.abc import Set

from latentforge import DataSpec, LossSpec, hookimpl
from latentforge_plugins.reconstruction import needs as needs_of_likelihood
from latentforge_plugins.reconstruction import ranges

from .config import WaeConfig


def needs(config: WaeConfig) -> Set[str]:
    return {*needs_of_likelihood(config), "prior"}


def build(config: WaeConfig, data: DataSpec):
    from .loss import Wae

    return Wae(config, data)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="wae",
        summary="-log p(x|z) + the MMD between the codes of the batch and samples of the prior",
        build=build,
        config=WaeConfig,
        needs=needs,
        ranges=ranges,
    )
