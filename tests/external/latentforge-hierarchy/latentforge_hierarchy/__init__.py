"""A hierarchical VAE with two groups of latent variables."""

from dataclasses import dataclass

from latentforge import ModelSpec, Size, hookimpl

LATENTFORGE_API = 2


@dataclass(frozen=True)
class TwoLevelConfig:
    """`hidden` is a width; `top` and `bottom` are the numbers of latent variables of the groups."""

    hidden: Size = 128
    top: Size = 4
    bottom: Size = 12


def build(config, data):
    from .model import TwoLevelVae

    return TwoLevelVae(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="two-level-vae",
        summary="A VAE with two groups of latent variables: the top one gives the other its prior",
        build=build,
        config=TwoLevelConfig,
        provides={"encode", "decode", "decode_logits", "prior", "log_prob", "log_ratio_terms"},
        default_loss="elbo",
        train={"lr": 5e-3},
    )
