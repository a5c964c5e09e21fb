"""A VAE with a VampPrior, and an explorer of its pseudo-inputs."""

from dataclasses import dataclass

from latentforge import ExplorerSpec, ModelSpec, Size, hookimpl

LATENTFORGE_API = 2


@dataclass(frozen=True)
class VampVaeConfig:
    """`hidden` is a width, `latent_dim` the code's length, `pseudo_inputs` their number."""

    hidden: Size = 128
    latent_dim: Size = 8
    pseudo_inputs: Size = 60


def build(config, data):
    from .model import VampVae

    return VampVae(config, data)


def explore(context, config):
    from .explorer import explore

    return explore(context, config)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="vamp-vae",
        summary="A VAE whose prior is the mixture of the posteriors of learnt pseudo-inputs",
        build=build,
        config=VampVaeConfig,
        provides={
            "encode",
            "decode",
            "decode_logits",
            "prior",
            "log_prob",
            "diagonal_gaussian",
            "pseudo_inputs",
        },
        default_loss="elbo",
        train={"lr": 2e-3},
    )


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="pseudo-inputs",
        summary="The pseudo-inputs of a VampPrior, and the images that their codes decode to",
        explore=explore,
        needs={"pseudo_inputs", "prior", "encode", "decode"},
    )
