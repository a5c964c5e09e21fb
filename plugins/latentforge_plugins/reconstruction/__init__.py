"""The loss `reconstruction`."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latentforge import DataSpec, LossSpec, Positive, hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ReconstructionConfig:
    """`sigma` is the standard deviation of the gaussian likelihood, or what it starts from where
    `learn_sigma` makes it a parameter."""

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    sigma: Positive = 1.0
    learn_sigma: bool = False

    def __post_init__(self) -> None:
        if self.likelihood == "bernoulli" and (self.learn_sigma or self.sigma != 1.0):
            raise ValueError("sigma and learn_sigma belong to likelihood = 'gaussian'")


def needs(config: ReconstructionConfig) -> Set[str]:
    return {"encode", "decode_logits" if config.likelihood == "bernoulli" else "decode"}


def build_loss(config: ReconstructionConfig, data: DataSpec) -> nn.Module:
    from .loss import Reconstruction

    return Reconstruction(config)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="reconstruction",
        summary="-log p(x|z) in nats per image, Bernoulli from logits or Gaussian",
        build=build_loss,
        config=ReconstructionConfig,
        needs=needs,
    )
