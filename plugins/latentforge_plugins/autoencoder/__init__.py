"""`ae`: an MLP autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import DataSpec, ModelSpec, hookimpl

from .config import AutoencoderConfig

if TYPE_CHECKING:
    from torch import nn


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
