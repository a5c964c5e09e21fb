"""`vae` and `beta-vae`: one MLP variational autoencoder with two sets of defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentforge import DataSpec, ModelSpec, Size, hookimpl
from latentforge_plugins.autoencoder import Activation, LatentActivation

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class VaeConfig:
    """`encoder` and `decoder` are widths in the order of the data's way through them, `latent_dim`
    is the length of a code.

    `activate_last` puts the activation after the encoder's last layer too: by default where there
    is only one, which would else be linear. `latent_activation` acts on the posterior's mean.
    """

    encoder: tuple[Size, ...] = (256, 128)
    decoder: tuple[Size, ...] = (128, 256)
    latent_dim: Size = 16
    activation: Activation = "relu"
    activate_last: bool | None = None
    latent_activation: LatentActivation = "none"


@dataclass(frozen=True)
class BetaVaeConfig(VaeConfig):
    """The options of `vae`, with one hidden layer and ten latent dimensions."""

    encoder: tuple[Size, ...] = (400,)
    decoder: tuple[Size, ...] = (400,)
    latent_dim: Size = 10


def build(config: VaeConfig, data: DataSpec) -> nn.Module:
    from .model import Vae

    return Vae(config, data)


PROVIDES = {"encode", "decode", "decode_logits", "kl", "log_prob", "diagonal_gaussian"}


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="vae",
        summary="MLP variational autoencoder for images or vectors of any size",
        build=build,
        config=VaeConfig,
        provides=PROVIDES,
        default_loss="elbo",
    )
    yield ModelSpec(
        name="beta-vae",
        summary="The network of vae with one hidden layer, trained with beta 4",
        build=build,
        config=BetaVaeConfig,
        provides=PROVIDES,
        default_loss="beta-elbo",
    )
