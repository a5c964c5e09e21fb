"""Options of `signal-vae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import Activation, LatentActivation


@dataclass(frozen=True)
class SignalVaeConfig:
    """`channels` are the output channels of the encoder's two convolutions, each of which halves
    the length, and `hidden` is the width of the layer after them; the decoder mirrors these layers.
    `kernel` is the odd width of the convolutions. A code has `latent_dim` dimensions.
    `activation` follows each hidden layer, and `latent_activation` is applied to the mean of the
    posterior."""

    channels: tuple[Size, Size] = (32, 64)
    kernel: Size = 5
    hidden: Size = 128
    latent_dim: Size = 16
    activation: Activation = "elu"
    latent_activation: LatentActivation = "none"

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")
