"""Options of `conv-vae`."""

from dataclasses import dataclass, field
from typing import Literal

from latentforge import Size
from latentforge_plugins.autoencoder.config import LatentActivation


@dataclass(frozen=True)
class ConvVaeConfig:
    """`channels` are the output channels of the encoder's two convolutions, and `hidden` is the
    width of the layer after them; the decoder mirrors these layers. A code has `latent_dim`
    dimensions. `latent_activation` is applied to the mean of the posterior. `padding` is the
    padding of the last convolution: zeros, or partial, which weights the values that exist at the
    border as if there were nine. With zeros, decoded images that are not black have a grey frame.
    """

    channels: tuple[Size, Size] = (64, 32)
    hidden: Size = 400
    latent_dim: Size = 20
    latent_activation: LatentActivation = "none"
    padding: Literal["partial", "zeros"] = field(
        default="partial", metadata={"older_runs": "zeros"}
    )
