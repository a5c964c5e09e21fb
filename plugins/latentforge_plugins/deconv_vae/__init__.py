"""Model `deconv-vae`: a VAE with strided convolutions and transposed convolutions."""

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES
from latentforge_plugins.vae import PROVIDES

from .config import DeconvVaeConfig


def build(config: DeconvVaeConfig, data: DataSpec):
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
        ranges=set(RANGES),
        default_loss="elbo",
    )
