"""`cnn-classifier`: three small convolutions, 99 % on MNIST with 7,178 parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentforge import DataSpec, Fraction, ModelSpec, Size, hookimpl

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CnnClassifierConfig:
    """`channels` of the three convolutions; `dropout` before the last layer."""

    channels: tuple[Size, Size, Size] = (8, 16, 32)
    dropout: Fraction = 0.5


def build(config: CnnClassifierConfig, data: DataSpec) -> nn.Module:
    from .model import CnnClassifier

    return CnnClassifier(config, data)


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="cnn-classifier",
        summary="Small convolutional classifier for images of any size",
        build=build,
        config=CnnClassifierConfig,
        provides={"classify", "layers"},
        default_loss="cross-entropy",
    )
