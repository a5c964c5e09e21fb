from dataclasses import dataclass

from latentforge import LossSpec, ModelSpec, NonNegative, Role, Size, hookimpl

LATENTFORGE_API = 2


@dataclass(frozen=True)
class DenoiserConfig:
    """`hidden` is the width of the two hidden layers."""

    hidden: Size = 256


@dataclass(frozen=True)
class DenoiserSampler:
    """`steps` is the number of DDIM steps, and `guidance` the weight of the class when codes are
    decoded: 0 ignores it, 1 is the model as trained, and larger values exaggerate it.
    """

    steps: Size = 20
    guidance: NonNegative = 1.0


def build_model(config, data, roles):
    from .parts import Denoiser

    return Denoiser(config, data, roles["autoencoder"])


def build_loss(config, data):
    from .parts import Denoising

    return Denoising(len(data.classes))


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="latent-diffusion",
        summary="A diffusion model of the codes of an autoencoder, with guidance by the class",
        build=build_model,
        config=DenoiserConfig,
        inference=DenoiserSampler,
        provides={"encode", "decode", "prior", "conditional", "denoise"},
        ranges={"unit", "signed", "counts", "any"},
        default_loss="denoising",
        train={"lr": 2e-3},
        roles={"autoencoder": Role({"encode", "decode"}, standardize=True)},
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="denoising",
        summary="Squared error of the predicted velocity of noisy codes",
        build=build_loss,
        needs={"denoise"},
        labels=True,
    )
