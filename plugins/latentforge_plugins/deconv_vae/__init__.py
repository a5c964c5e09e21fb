"""`deconv-vae`: strided convolutions down to the code, transposed ones back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentforge import DataSpec, ModelSpec, Size, hookimpl
from latentforge_plugins.autoencoder import LatentActivation
from latentforge_plugins.vae import PROVIDES

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DeconvVaeConfig:
    """`encoder`: channels of the three convolutions. `decoder`: channels of the grid that the code
    is spread to, and after the first two transposed convolutions. A code has `latent_dim` numbers;
    `latent_activation` acts on the posterior's mean."""

    encoder: tuple[Size, Size, Size] = (32, 64, 128)
    decoder: tuple[Size, Size, Size] = (1024, 256, 128)
    latent_dim: Size = 2
    latent_activation: LatentActivation = "none"


def build(config: DeconvVaeConfig, data: DataSpec) -> nn.Module:
    from .model import DeconvVae

    return DeconvVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="deconv-vae",
        summary="VAE of strided and transposed convolutions, for images of 28x28 and larger",
        build=build,
        config=DeconvVaeConfig,
        provides=PROVIDES,
        default_loss="elbo",
    )
