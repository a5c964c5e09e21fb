"""The network of `cnn-classifier`: conv, pool, conv, pool, conv, average pool, dropout, linear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import DataSpec
from latentforge.errors import UsageError

if TYPE_CHECKING:
    from . import CnnClassifierConfig

STRIDE = 16  # what the three poolings divide each side by


class CnnClassifier(nn.Module):
    def __init__(self, config: CnnClassifierConfig, data: DataSpec) -> None:
        super().__init__()
        if data.kind != "image":
            raise UsageError(
                f"cnn-classifier takes images, not vectors of size {data.size}",
                remedy="a model for vectors; see `latentforge list models`",
            )
        channels, height, width = data.shape
        # Pad inside, evenly, to whole poolings (28 to 32), so that runs share one preprocessing.
        extra_h, extra_w = -height % STRIDE, -width % STRIDE
        self.padding = (extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2)
        cells = (height + extra_h) * (width + extra_w) // STRIDE**2
        a, b, c = config.channels
        self.features = nn.Sequential(
            nn.Conv2d(channels, a, 3, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(a, b, 3, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(b, c, 3, padding="same"),
            nn.ReLU(),
            nn.AvgPool2d(4),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(c * cells, len(data.classes))

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(F.pad(x, self.padding))  # (B, 32, 2, 2) for MNIST
        return self.head(self.dropout(h.flatten(1)))  # (B, classes)

    def layers(self) -> list[str]:
        return [f"features.{i}" for i in range(len(self.features))]
