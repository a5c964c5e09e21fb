"""Convolutional networks of models whose codes are grids, and the posterior of such codes if each
vector of a grid is an entry of a codebook."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentforge_plugins.networks import padding_to

STRIDE = 4  # image values per code in each direction: two convolutions of stride 2


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)),
            *(nn.ReLU(), nn.Conv2d(width, width, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class GridEncoder(nn.Module):
    """Maps images (B, C, H, W) of any size to (B, dim, H/4, W/4), rounded up."""

    def __init__(self, shape: tuple[int, int, int], width: int, dim: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.padding = padding_to(STRIDE, height, width_)
        self.shape = (dim, math.ceil(height / STRIDE), math.ceil(width_ / STRIDE))
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            *(Residual(2 * width), nn.ReLU()),
            nn.Conv2d(2 * width, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(F.pad(x, self.padding) if any(self.padding) else x)


class GridDecoder(nn.Module):
    """Maps codes (B, dim, H/4, W/4) to logits of images (B, C, H, W)."""

    def __init__(self, shape: tuple[int, int, int], width: int, dim: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        left, _, top, _ = padding_to(STRIDE, height, width_)
        self.rows, self.columns = slice(top, top + height), slice(left, left + width_)
        self.layers = nn.Sequential(
            nn.Conv2d(dim, 2 * width, 3, padding=1),
            *(Residual(2 * width), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.ReLU()),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)[..., self.rows, self.columns]


class Quantized:
    """Codes whose vectors are entries of a codebook. `continuous`, the outputs of the encoder, and
    `quantized`, their entries, are (B, D, H, W). `entry`, int64 (B, H, W), indexes the codebook."""

    def __init__(self, continuous: Tensor, quantized: Tensor, entry: Tensor) -> None:
        self.continuous, self.quantized, self.entry = continuous, quantized, entry

    def mode(self) -> Tensor:
        return self.quantized

    def sample(self) -> Tensor:
        """The entries, with a straight-through gradient to the encoder (Bengio et al. 2013)."""
        return self.continuous + (self.quantized - self.continuous).detach()

    def commitment(self) -> Tensor:
        """The squared distance of each code from its entries, with gradients for the encoder only:
        (B,). Van den Oord, Vinyals and Kavukcuoglu 2017, eq. 3."""
        return (self.continuous - self.quantized.detach()).square().flatten(1).sum(1)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest entry (K, D) to each vector (..., D): int64 (...)."""
    device = vectors.device.type.replace("meta", "cpu")  # torch's meta device has no autocast
    with torch.no_grad(), torch.autocast(device, enabled=False):
        # |v - e|^2 without |v|^2, which is the same for every entry
        return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(-1)
