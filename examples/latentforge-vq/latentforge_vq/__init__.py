"""A VQ-VAE (van den Oord, Vinyals and Kavukcuoglu 2017): model, loss, measure, and an explorer of
its codebook. Most commands import this module; torch is imported only when a run needs it."""

from dataclasses import dataclass

from latentforge import (
    ExplorerSpec,
    LossSpec,
    MeasureSpec,
    ModelSpec,
    NonNegative,
    Size,
    hookimpl,
)


@dataclass(frozen=True)
class VqVaeConfig:
    """`entries` is the number of codebook entries, `dim` their length; `width` is the number of
    channels between convolutions."""

    entries: Size = 32
    dim: Size = 8
    width: Size = 16


@dataclass(frozen=True)
class VqConfig:
    """`commitment` weighs the distance between codes and their entries (beta in the paper)."""

    commitment: NonNegative = 0.25


@dataclass(frozen=True)
class CodebookConfig:
    """`shown` is the number of entries, the most used first, that are decoded one by one."""

    shown: Size = 16


def build_model(config, data):
    from .model import VqVae

    return VqVae(config, data)


def build_loss(config, data):
    from .loss import Vq

    return Vq(config)


def build_perplexity(config, context):
    from .codebook import Perplexity

    return Perplexity()


def explore(context, config):
    from .codebook import explore

    return explore(context, config)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="vq-vae",
        summary="Convolutional VQ-VAE: codes are entries of a learnt codebook",
        build=build_model,
        config=VqVaeConfig,
        provides={"encode", "decode", "decode_logits", "codebook"},
        default_loss="vq",
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="vq",
        summary="-log p(x|z), codebook and commitment as squared distances per image",
        build=build_loss,
        config=VqConfig,
        needs={"encode", "decode_logits", "codebook"},
    )


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="perplexity",
        summary="Effective number of codebook entries in use",
        build=build_perplexity,
        protocol="exp of the entropy (nats) of the entries' frequencies in all codes of the split",
        needs={"encode", "codebook"},
        better="higher",
    )


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="codebook",
        summary="How often each entry is used, and what it looks like",
        explore=explore,
        config=CodebookConfig,
        needs={"encode", "decode", "codebook"},
    )
