"""`mlp-classifier`: a few linear layers from pixels to classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentforge import Count, DataSpec, ModelSpec, Size, hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class MlpClassifierConfig:
    """`layers` of linear and ReLU, all of the same `width`, between the first and the last one."""

    layers: Count = 2
    width: Size = 128


def build(config: MlpClassifierConfig, data: DataSpec) -> nn.Module:
    from .model import MlpClassifier

    return MlpClassifier(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="mlp-classifier",
        summary="MLP classifier for images or vectors of any size",
        build=build,
        config=MlpClassifierConfig,
        provides={"classify", "layers"},
        default_loss="cross-entropy",
    )
