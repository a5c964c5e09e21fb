"""Options of `vae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.autoencoder.config import Activation, LatentActivation


@dataclass(frozen=True)
class VaeConfig:
    """`encoder` and `decoder` are layer widths in the order of the data flow, and `latent_dim` is
    the length of a code.

    `activate_last` adds an `activation` after the encoder's last layer. By default, it is added
    only if this layer is the encoder's only layer, because the encoder would otherwise be linear.
    `latent_activation` is applied to the posterior's mean. The default `activation` is elu, because
    with relu the posterior often collapses in the first epochs.
    """

    encoder: tuple[Size, ...] = (256, 128)
    decoder: tuple[Size, ...] = (128, 256)
    latent_dim: Size = 16
    activation: Activation = "elu"
    activate_last: bool | None = None
    latent_activation: LatentActivation = "none"
