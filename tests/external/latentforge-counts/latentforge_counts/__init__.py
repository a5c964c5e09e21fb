import math
from dataclasses import dataclass

from latentforge import (
    DatasetSpec,
    DataSpec,
    ExplorerSpec,
    LossSpec,
    ModelSpec,
    NonNegative,
    Positive,
    Size,
    hookimpl,
)

LATENTFORGE_API = 2


@dataclass(frozen=True)
class CountVaeConfig:
    """`latent_dim` is the code's length, `channels` the number of channels of each convolution."""

    latent_dim: Size = 4
    channels: Size = 16


@dataclass(frozen=True)
class CountElboConfig:
    """`beta` weighs the KL."""

    beta: NonNegative = 1.0


@dataclass(frozen=True)
class SpectraConfig:
    """`examples` is the number of training spectra, of `length` channels each. `dispersion` is that
    of the counts: their variance is mean + mean^2 / `dispersion`.
    """

    examples: Size = 1000
    length: Size = 64
    dispersion: Positive = 8.0


def build_model(config, data):
    from .parts import CountVae

    return CountVae(config, data)


def build_loss(config, data):
    from .parts import CountElbo

    return CountElbo(config)


def load(config, split):
    from .spectra import spectra

    return spectra(config, split)


def explore(context, config):
    from .parts import fano_factor

    return fano_factor(context)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="count-vae",
        summary="A VAE of 1-D convolutions for signals of counts",
        build=build_model,
        config=CountVaeConfig,
        provides={"encode", "decode", "kl", "log_prob", "diagonal_gaussian"},
        ranges={"counts"},
        default_loss="count-elbo",
        train={"lr": 1e-2},
        example=DataSpec((2, 50), "signal", range=(0.0, math.inf), limits=(0.0, 40.0)),
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="count-elbo",
        summary="-ELBO of counts, negative-binomial with a learnt dispersion",
        build=build_loss,
        config=CountElboConfig,
        needs={"encode", "decode", "variational"},
        ranges={"counts"},
    )


@hookimpl
def latentforge_datasets():
    yield DatasetSpec(
        name="line-spectra",
        summary="Photon counts of one or two emission lines over a background",
        load=load,
        config=SpectraConfig,
        splits=("train", "test"),
    )


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="fano-factor",
        summary="The variance of counts over their mean, in the data and under the likelihood",
        explore=explore,
        needs={"encode", "decode"},
        ranges={"counts"},
    )
