"""Options of `cvae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import Activation


@dataclass(frozen=True)
class CvaeConfig:
    """`encoder` and `decoder` are layer widths in the order of the data flow, `latent_dim` is the
    length of a code, and `activation` follows each layer of these widths."""

    encoder: tuple[Size, ...] = (256, 128)
    decoder: tuple[Size, ...] = (128, 256)
    latent_dim: Size = 16
    activation: Activation = "elu"
