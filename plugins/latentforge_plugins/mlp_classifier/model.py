"""The network of `mlp-classifier`: linear, then `layers` times linear and ReLU, then linear."""

from __future__ import annotations

from torch import Tensor, nn

from latentforge import DataSpec
from latentforge_plugins.networks import class_count, mlp

from .config import MlpClassifierConfig


class MlpClassifier(nn.Module):
    def __init__(self, config: MlpClassifierConfig, data: DataSpec) -> None:
        super().__init__()
        widths = [config.width] * (config.layers + 1)
        self.features = nn.Sequential(
            nn.Linear(data.size, config.width),  # a projection without an activation
            *mlp(widths, "relu", activate_last=True),
        )
        self.head = nn.Linear(config.width, class_count("mlp-classifier", data))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x.flatten(1)))  # (B, classes)

    def layers(self) -> list[str]:
        return [f"features.{i}" for i in range(len(self.features))]
