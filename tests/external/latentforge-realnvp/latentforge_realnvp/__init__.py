from dataclasses import dataclass

from latentforge import ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class RealNvpVaeConfig:
    """`latent_dim` is the length of the code, and `hidden` the width of encoder and decoder.

    The prior has `couplings` affine couplings, each with a network of `coupling_hidden` units.
    """

    latent_dim: Size = 8
    hidden: Size = 256
    couplings: Size = 6
    coupling_hidden: Size = 64

    def __post_init__(self):
        if self.latent_dim < 2:
            raise ValueError(
                "latent_dim must be at least 2, because a coupling keeps some dimensions"
            )


def build(config, data):
    from .model import RealNvpVae

    return RealNvpVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="realnvp-vae",
        summary="A VAE whose prior is a RealNVP flow",
        build=build,
        config=RealNvpVaeConfig,
        provides={"encode", "decode", "decode_logits", "prior", "log_prob", "diagonal_gaussian"},
        default_loss="elbo",
        ranges={"unit"},
        train={"lr": 5e-3},
    )
