"""`conv-vae`: convolutions with batch norm and pooling, and back by nearest upsampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentforge import DataSpec, ModelSpec, Size, hookimpl
from latentforge_plugins.autoencoder import LatentActivation
from latentforge_plugins.vae import PROVIDES

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ConvVaeConfig:
    """`channels` of the encoder's two convolutions, `hidden` the width of the layer after them; the
    decoder mirrors both. A code has `latent_dim` numbers; `latent_activation` acts on the
    posterior's mean."""

    channels: tuple[Size, Size] = (64, 32)
    hidden: Size = 400
    latent_dim: Size = 20
    latent_activation: LatentActivation = "none"


def build(config: ConvVaeConfig, data: DataSpec) -> nn.Module:
    from .model import ConvVae

    return ConvVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="conv-vae",
        summary="Convolutional VAE with batch norm and upsampling, for images of any size",
        build=build,
        config=ConvVaeConfig,
        provides=PROVIDES,
        default_loss="elbo",
    )
