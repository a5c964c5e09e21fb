"""The loss `reconstruction`."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from latentforge import DataSpec, LossSpec, hookimpl

from .config import ReconstructionConfig

if TYPE_CHECKING:
    from torch import nn


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
