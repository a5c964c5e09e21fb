"""The network of `cnn-classifier`: conv, pool, conv, pool, conv, average pool, dropout, linear."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import DataSpec
from latentforge_plugins.networks import class_count, image_shape, padding_to

from .config import CnnClassifierConfig

STRIDE = 16  # the factor by which the three pooling layers reduce height and width


class CnnClassifier(nn.Module):
    def __init__(self, config: CnnClassifierConfig, data: DataSpec) -> None:
        super().__init__()
        channels, height, width = image_shape("cnn-classifier", data, "mlp-classifier")
        self.padding = padding_to(STRIDE, height, width)  # 28 to 32
        left, right, top, bottom = self.padding
        cells = (height + top + bottom) * (width + left + right) // STRIDE**2
        a, b, c = config.channels
        self.features = nn.Sequential(
            nn.Conv2d(channels, a, 3, padding="same"),
            nn.MaxPool2d(2),  # before ReLU: the same values, computed on a quarter of them
            nn.ReLU(),
            nn.Conv2d(a, b, 3, padding="same"),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(b, c, 3, padding="same"),
            nn.ReLU(),
            nn.AvgPool2d(4),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(c * cells, class_count("cnn-classifier", data))

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(F.pad(x, self.padding))  # (B, 32, 2, 2) for MNIST
        return self.head(self.dropout(h.flatten(1)))  # (B, classes)

    def layers(self) -> list[str]:
        return [f"features.{i}" for i in range(len(self.features))]
