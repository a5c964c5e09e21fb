"""Options of `deconv-vae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import LatentActivation


@dataclass(frozen=True)
class DeconvVaeConfig:
    """`encoder` are the output channels of the three convolutions. `decoder` are the channels of
    the grid that is computed from the code, and the output channels of the first two transposed
    convolutions. A code has `latent_dim` dimensions. `latent_activation` is applied to the mean of
    the posterior."""

    encoder: tuple[Size, Size, Size] = (32, 64, 128)
    decoder: tuple[Size, Size, Size] = (1024, 256, 128)
    latent_dim: Size = 2
    latent_activation: LatentActivation = "none"
