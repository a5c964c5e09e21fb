"""Model `cvae`: a conditional variational autoencoder, which is given the class of each image."""

from latentforge import DataSpec, ModelSpec, hookimpl
from latentforge.contracts import RANGES

from .config import CvaeConfig


def build(config: CvaeConfig, data: DataSpec):
    from .model import Cvae

    return Cvae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="cvae",
        summary="MLP variational autoencoder that is given the class of each image",
        build=build,
        config=CvaeConfig,
        provides={
            *("encode", "decode", "decode_logits", "kl", "log_prob", "diagonal_gaussian"),
            "conditional",
        },
        default_loss="elbo",
        train={"lr": 2e-3},
        ranges=set(RANGES),
    )
