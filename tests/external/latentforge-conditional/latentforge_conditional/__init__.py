from dataclasses import dataclass

from latentforge import ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class LabelVaeConfig:
    """`hidden` is the width of the hidden layers, and `latent_dim` the length of the code."""

    hidden: Size = 256
    latent_dim: Size = 8


def build(config, data):
    from latentforge.errors import UsageError

    from .model import LabelVae

    if not data.classes:
        raise UsageError("label-vae needs labels")
    return LabelVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="label-vae",
        summary="A VAE whose encoder, decoder and prior are given the class",
        build=build,
        config=LabelVaeConfig,
        provides={
            *("encode", "decode", "decode_logits", "prior", "log_prob", "diagonal_gaussian"),
            "conditional",
        },
        default_loss="elbo",
        ranges={"unit"},
        train={"lr": 5e-3},
    )
