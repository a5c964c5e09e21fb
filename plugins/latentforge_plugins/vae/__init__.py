"""Models `vae` and `beta-vae`: one MLP variational autoencoder with two sets of defaults."""

from collections.abc import Set
from dataclasses import dataclass

from latentforge import DataSpec, ModelSpec, Size, hookimpl
from latentforge.contracts import RANGES

from .config import VaeConfig


@dataclass(frozen=True)
class BetaVaeConfig(VaeConfig):
    """The options of `vae`, with one hidden layer and ten latent dimensions."""

    encoder: tuple[Size, ...] = (400,)
    decoder: tuple[Size, ...] = (400,)
    latent_dim: Size = 10


def build(config: VaeConfig, data: DataSpec):
    if config.prior == "normal":
        from .model import Vae

        return Vae(config, data)
    from .priors import build_vae

    return build_vae(config, data)


TRAIN = {"lr": 2e-3}
PROVIDES = {"encode", "decode", "decode_logits", "kl", "log_prob", "diagonal_gaussian"}


def provides(config: VaeConfig) -> Set[str]:
    """The KL to a learnt prior has no closed form."""
    return PROVIDES if config.prior == "normal" else {*PROVIDES - {"kl"}, "prior"}


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="vae",
        summary="MLP variational autoencoder for images or vectors of any size",
        build=build,
        config=VaeConfig,
        provides=provides,
        ranges=set(RANGES),
        default_loss="elbo",
        train=TRAIN,
    )
    yield ModelSpec(
        name="beta-vae",
        summary="The network of vae with one hidden layer, trained with beta 4",
        build=build,
        config=BetaVaeConfig,
        provides=provides,
        ranges=set(RANGES),
        default_loss="beta-elbo",
        train=TRAIN,
    )
