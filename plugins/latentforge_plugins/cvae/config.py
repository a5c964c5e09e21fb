"""Options of `cvae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import Activation


@dataclass(frozen=True)
class CvaeConfig:
    """`encoder` and `decoder` are layer widths in the order of the data flow, `latent_dim` is the
    length of a code, and `activation` follows each layer of these widths.

    By default, codes are shorter than those of `vae`, because samples of longer codes show the
    given class less often. A wider decoder improves these samples and the bound.
    """

    encoder: tuple[Size, ...] = (256, 128)
    decoder: tuple[Size, ...] = (256, 512)
    latent_dim: Size = 8
    activation: Activation = "elu"
