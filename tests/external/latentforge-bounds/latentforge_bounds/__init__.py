from dataclasses import dataclass

from latentforge import LossSpec, NonNegative, Size, hookimpl


@dataclass(frozen=True)
class ImportanceWeightedConfig:
    """`samples` is the number of codes K that are drawn for each image."""

    samples: Size = 5


@dataclass(frozen=True)
class WaeMmdConfig:
    """`weight` multiplies the squared MMD between codes and prior."""

    weight: NonNegative = 100.0


def build_importance_weighted(config, data):
    from .losses import ImportanceWeighted

    return ImportanceWeighted(config)


def build_wae_mmd(config, data):
    from .losses import WaeMmd

    return WaeMmd(config)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="importance-weighted",
        summary="-log of the mean importance weight of K codes, in nats per image",
        build=build_importance_weighted,
        config=ImportanceWeightedConfig,
        needs={"encode", "decode_logits", "prior", "log_prob"},
        ranges={"unit"},
    )
    yield LossSpec(
        name="wae-mmd",
        summary="-log p(x|z) + weight * squared MMD between the codes and samples of the prior",
        build=build_wae_mmd,
        config=WaeMmdConfig,
        needs={"encode", "decode_logits", "prior"},
        ranges={"unit"},
    )
