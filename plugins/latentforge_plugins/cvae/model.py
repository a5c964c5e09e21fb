"""The network of `cvae` (Sohn, Lee and Yan 2015): q(z | x, y), p(x | z, y) and the prior N(0, I).

The one-hot class is an input of the encoder and of the decoder, so z describes what the class does
not determine, such as the slant of a digit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import DiagonalGaussian, Given, to_range
from latentforge_plugins.networks import GaussianHead, class_count, mlp, network_input

from .config import CvaeConfig


class Cvae(nn.Module):
    def __init__(self, config: CvaeConfig, data: DataSpec) -> None:
        super().__init__()
        self.shape, self.range = data.shape, data.range
        self.classes = class_count("cvae", data)
        self.latent = LatentSpec(shape=(config.latent_dim,), prior="normal")
        widths = [data.size + self.classes, *config.encoder]
        self.encoder = mlp(widths, config.activation, activate_last=True)
        self.head = GaussianHead(widths[-1], config.latent_dim, "none")
        inputs = config.latent_dim + self.classes
        self.decoder = mlp([inputs, *config.decoder, data.size], config.activation)

    def given(self, y: Tensor) -> Given:
        return Given(self, y)

    def encode(self, x: Tensor, y: Tensor) -> DiagonalGaussian:
        x = network_input(x, self.range)
        return self.head(self.encoder(self.with_class(x.flatten(1), y)))

    def decode_logits(self, z: Tensor, y: Tensor) -> Tensor:
        return self.decoder(self.with_class(z, y)).unflatten(1, self.shape)  # (B, C, H, W)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return to_range(self.decode_logits(z, y), self.range)

    def with_class(self, rows: Tensor, y: Tensor) -> Tensor:
        """Append the one-hot class y (B,) to rows (B, D): (B, D + classes)."""
        return torch.cat([rows, F.one_hot(y, self.classes).to(rows)], 1)
