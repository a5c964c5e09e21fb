"""Model `conv-vae`: a VAE with convolutions, batch norm, pooling and nearest upsampling."""

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES
from latentforge_plugins.vae import PROVIDES

from .config import ConvVaeConfig


def build(config: ConvVaeConfig, data: DataSpec):
    from .model import ConvVae

    return ConvVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="conv-vae",
        summary="Convolutional VAE with batch norm and upsampling, for images of any size",
        build=build,
        config=ConvVaeConfig,
        provides=PROVIDES,
        ranges=set(RANGES),
        default_loss="elbo",
    )
