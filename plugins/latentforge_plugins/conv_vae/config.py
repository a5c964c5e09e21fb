"""Options of `conv-vae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import LatentActivation


@dataclass(frozen=True)
class ConvVaeConfig:
    """`channels` are the output channels of the encoder's two convolutions, and `hidden` is the
    width of the layer after them; the decoder mirrors these layers. A code has `latent_dim`
    dimensions. `latent_activation` is applied to the mean of the posterior."""

    channels: tuple[Size, Size] = (64, 32)
    hidden: Size = 400
    latent_dim: Size = 20
    latent_activation: LatentActivation = "none"
