"""`conv-vae`: convolutions with batch norm and pooling, and back by nearest upsampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge_plugins.vae import PROVIDES

from .config import ConvVaeConfig

if TYPE_CHECKING:
    from torch import nn


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
