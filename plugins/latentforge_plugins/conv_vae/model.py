"""The network of `conv-vae`: two blocks of conv, ReLU, batch norm and pooling; mirrored decoder."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import DiagonalGaussian, to_range
from latentforge_plugins.networks import GaussianHead, image_shape, network_input, padding_to

from .config import ConvVaeConfig

STRIDE = 4  # the factor by which the two pooling layers reduce height and width


class BatchNorm1d(nn.BatchNorm1d):
    """Batch norm that normalises a batch of one image with the running statistics, as in
    evaluation. The last batch of an epoch may contain one image, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or len(input) > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class PartialConv2d(nn.Conv2d):
    """A 3x3 convolution whose sums are divided by the fraction of the nine values that lie in the
    image, 2/3 at a side and 4/9 in a corner, so that they have the same scale everywhere (Liu et
    al. 2018, arXiv:1811.11718)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        fraction = F.avg_pool2d(input.new_ones(1, 1, *input.shape[2:]), 3, stride=1, padding=1)
        return F.conv2d(input, self.weight, padding=1) / fraction + self.bias[:, None, None]


class ConvVae(nn.Module):
    def __init__(self, config: ConvVaeConfig, data: DataSpec) -> None:
        super().__init__()
        channels, height, width = image_shape("conv-vae", data, "vae")
        self.range = data.range
        self.latent = LatentSpec(shape=(config.latent_dim,), prior="normal")
        self.padding = padding_to(STRIDE, height, width)
        left, _, top, _ = self.padding
        self.rows, self.columns = slice(top, top + height), slice(left, left + width)
        a, b = config.channels
        grid = (b, math.ceil(height / STRIDE), math.ceil(width / STRIDE))  # (32, 7, 7) for MNIST
        cells, hidden = math.prod(grid), config.hidden
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, a, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(a), nn.MaxPool2d(2)),
            *(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(b), nn.MaxPool2d(2)),
            nn.Flatten(),
            *(nn.Linear(cells, hidden), nn.ReLU(), BatchNorm1d(hidden)),
        )
        self.head = GaussianHead(hidden, config.latent_dim, config.latent_activation)
        last = PartialConv2d(a, channels)
        if config.padding == "zeros":
            last = nn.Conv2d(a, channels, 3, padding=1)
        self.decoder = nn.Sequential(
            *(nn.Linear(config.latent_dim, hidden), nn.ReLU(), BatchNorm1d(hidden)),
            *(nn.Linear(hidden, cells), nn.ReLU(), BatchNorm1d(cells)),
            nn.Unflatten(1, grid),
            nn.Upsample(scale_factor=2),
            *(nn.Conv2d(b, a, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(a)),
            nn.Upsample(scale_factor=2),
            last,
        )

    def encode(self, x: Tensor) -> DiagonalGaussian:
        x = network_input(x, self.range)
        if any(self.padding):
            x = F.pad(x, self.padding)
        return self.head(self.encoder(x))

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z)[..., self.rows, self.columns]  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)
