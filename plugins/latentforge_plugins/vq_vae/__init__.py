"""Model `vq-vae`: a convolutional autoencoder whose codes are entries of a learnt codebook."""

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES

from .config import VqVaeConfig


def build(config: VqVaeConfig, data: DataSpec):
    from .model import VqVae

    return VqVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="vq-vae",
        summary="Convolutional VQ-VAE: a grid of codebook entries, for images of any size",
        build=build,
        config=VqVaeConfig,
        provides={"encode", "decode", "decode_logits", "codebook", "commitment"},
        ranges=set(RANGES),
        default_loss="commitment",
        train={"lr": 2e-3},
    )
