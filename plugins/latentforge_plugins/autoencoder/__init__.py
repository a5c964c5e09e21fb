"""Model `ae`: an MLP autoencoder."""

from collections.abc import Set

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES

from .config import AutoencoderConfig


def build(config: AutoencoderConfig, data: DataSpec):
    from .model import Autoencoder

    return Autoencoder(config, data)


def provides(config: AutoencoderConfig) -> Set[str]:
    return {"encode", "decode", "decode_logits", *({"prior"} if config.prior == "normal" else ())}


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="ae",
        summary="MLP autoencoder for images or vectors of any size",
        build=build,
        config=AutoencoderConfig,
        provides=provides,
        ranges=set(RANGES),
        default_loss="reconstruction",
        train={"lr": 2e-3},
    )
