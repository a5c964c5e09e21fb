"""`ae`: an MLP autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latentforge import DataSpec, ModelSpec, Size, hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AutoencoderConfig:
    """`hidden` are the encoder's widths from the input on; the decoder mirrors them."""

    hidden: tuple[Size, ...] = (512, 128)
    latent_dim: Size = 16
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"] = "relu"
    latent_activation: Literal["none", "relu", "tanh"] = "none"


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
