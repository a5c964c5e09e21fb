"""`deconv-vae`: strided convolutions down to the code, transposed ones back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge_plugins.vae import PROVIDES

from .config import DeconvVaeConfig

if TYPE_CHECKING:
    from torch import nn


def build(config: DeconvVaeConfig, data: DataSpec) -> nn.Module:
    from .model import DeconvVae

    return DeconvVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="deconv-vae",
        summary="VAE of strided and transposed convolutions, for images of 28x28 and larger",
        build=build,
        config=DeconvVaeConfig,
        provides=PROVIDES,
        default_loss="elbo",
    )
