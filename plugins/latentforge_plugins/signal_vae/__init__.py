"""Model `signal-vae`: a VAE with 1-D convolutions."""

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES
from latentforge_plugins.vae import PROVIDES

from .config import SignalVaeConfig


def build(config: SignalVaeConfig, data: DataSpec):
    from .model import SignalVae

    return SignalVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="signal-vae",
        summary="VAE of 1-D convolutions, for signals of any length and number of channels",
        build=build,
        config=SignalVaeConfig,
        provides=PROVIDES,
        ranges=set(RANGES),
        default_loss="elbo",
        example=DataSpec((2, 50), "signal"),
        train={"lr": 2e-3},
    )
