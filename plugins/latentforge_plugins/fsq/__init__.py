"""Model `fsq`: a convolutional autoencoder whose codes are rounded (finite scalar quantization)."""

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES

from .config import FsqConfig


def build(config: FsqConfig, data: DataSpec):
    from .model import Fsq

    return Fsq(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="fsq",
        summary="Convolutional autoencoder with rounded codes, for images of any size",
        build=build,
        config=FsqConfig,
        provides={"encode", "decode", "decode_logits", "codebook"},
        ranges=set(RANGES),
        default_loss="reconstruction",
        train={"lr": 2e-3},
    )
