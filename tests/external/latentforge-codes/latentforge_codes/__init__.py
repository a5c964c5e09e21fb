"""A VQ-VAE, and a GRU that is a prior over the codes of another run."""

from dataclasses import dataclass

from latentforge import DataSpec, LossSpec, ModelSpec, Role, Size, hookimpl

LATENTFORGE_API = 2
ROLES = {"autoencoder": Role({"encode", "decode", "decode_logits", "codebook"})}


@dataclass(frozen=True)
class QuantizerConfig:
    """`width` is the number of channels, `entries` the size of the codebook, `dim` its vectors'."""

    width: Size = 32
    entries: Size = 32
    dim: Size = 8


@dataclass(frozen=True)
class CodeGruConfig:
    """`hidden` is the width of the GRU."""

    hidden: Size = 64


def build_quantizer(config, data):
    from .quantizer import Quantizer

    return Quantizer(config, data)


def build_gru(config, data, roles):
    from .prior import CodeGru

    return CodeGru(config, roles["autoencoder"])


def build_nll(config, data, roles):
    from .loss import CodeNll

    return CodeNll(roles["autoencoder"])


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="quantizer",
        summary="A small convolutional VQ-VAE, a quarter as high and as wide as the image",
        build=build_quantizer,
        config=QuantizerConfig,
        provides={"encode", "decode", "decode_logits", "codebook", "commitment"},
        default_loss="commitment",
        train={"lr": 2e-3},
        example=DataSpec((1, 16, 16)),
    )
    yield ModelSpec(
        name="code-gru",
        summary="A GRU prior over the codes of a model with a codebook",
        build=build_gru,
        config=CodeGruConfig,
        provides={"encode", "decode", "decode_logits", "kl", "log_prob"},
        default_loss="code-nll",
        roles=ROLES,
        train={"lr": 5e-3},
        example=DataSpec((1, 16, 16)),
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="code-nll",
        summary="-log p(entries) under the prior over codes, in nats per image",
        build=build_nll,
        needs={"encode", "kl"},
        roles=ROLES,
    )
