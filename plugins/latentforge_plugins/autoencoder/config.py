"""Options of `ae`."""

from dataclasses import dataclass
from typing import Literal

from latentforge import Size

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]
LatentActivation = Literal["none", "relu", "tanh"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """`hidden` are the widths of the encoder's hidden layers, each followed by `activation`; the
    decoder mirrors them. `latent_activation` is applied to the code, which has `latent_dim`
    dimensions: relu keeps it in [0, inf), tanh in (-1, 1). With `prior` normal, codes are compared
    with N(0, I) by a loss such as `wae`, and samples are drawn from it."""

    hidden: tuple[Size, ...] = (512, 128)
    latent_dim: Size = 16
    activation: Activation = "elu"
    latent_activation: LatentActivation = "none"
    prior: Literal["none", "normal"] = "none"
