"""A hierarchical VAE with two groups of latent variables, and the KL of each group."""

from dataclasses import dataclass

from latentforge import MeasureSpec, ModelSpec, Size, hookimpl

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


def build_measure(config, context):
    from .measure import LevelKl

    return LevelKl()


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="two-level-vae",
        summary="A VAE with two groups of latent variables: the top one gives the other its prior",
        build=build,
        config=TwoLevelConfig,
        provides={"encode", "decode", "decode_logits", "prior", "log_prob", "level_kl"},
        default_loss="elbo",
        train={"lr": 5e-3},
    )


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="level_kl",
        summary="KL of each group of a hierarchical VAE, the bottom one under a sample of the top",
        build=build_measure,
        protocol="nats per image: KL(q(top|x) || p(top)) in closed form, and "
        "KL(q(bottom|top,x) || p(bottom|top)) for one seeded sample of top",
        needs={"encode", "level_kl"},
    )
