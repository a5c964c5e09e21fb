"""Options of deconv vae."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import LatentActivation


@dataclass(frozen=True)
class DeconvVaeConfig:
    """`encoder`: channels of the three convolutions. `decoder`: channels of the grid that the code
    is spread to, and after the first two transposed convolutions. A code has `latent_dim` numbers;
    `latent_activation` acts on the posterior's mean."""

    encoder: tuple[Size, Size, Size] = (32, 64, 128)
    decoder: tuple[Size, Size, Size] = (1024, 256, 128)
    latent_dim: Size = 2
    latent_activation: LatentActivation = "none"
