"""`ae`: an MLP autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latentforge import DataSpec, ModelSpec, Size, hookimpl

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]
LatentActivation = Literal["none", "relu", "tanh"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """`hidden` are the encoder's widths from the input on, with an `activation` after each; the
    decoder mirrors them. `latent_activation` acts on the code, which has `latent_dim` numbers: relu
    keeps it in [0, inf), tanh in (-1, 1)."""

    hidden: tuple[Size, ...] = (512, 128)
    latent_dim: Size = 16
    activation: Activation = "relu"
    latent_activation: LatentActivation = "none"


def build(config: AutoencoderConfig, data: DataSpec) -> nn.Module:
    from .model import Autoencoder

    return Autoencoder(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="ae",
        summary="MLP autoencoder for images or vectors of any size",
        build=build,
        config=AutoencoderConfig,
        provides={"encode", "decode", "decode_logits"},
        default_loss="reconstruction",
    )
