"""Hand-written networks of the benchmarks, with the shapes of the networks of the plugins."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Case:
    """A training run that is the same in every variant: a model plugin with options, and its
    hand-written network.

    `loss` takes the network, images (B, 1, 28, 28) and labels, and returns nats per image. `target`
    contains the aims for the speed of LatentForge relative to the hand-written loop and to
    Lightning. A `slow` case trains on fewer images.
    """

    model: str
    options: dict[str, Any]
    batch_size: int
    network: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    target: tuple[float, float]
    pad: int = 0
    slow: bool = False


def mlp(*widths: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]


def bce(logits: Tensor, x: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def autoencoder_loss(network: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    flat = x.flatten(1)
    return bce(network(flat), flat)


def classifier_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(network(x), y)


class Vae(nn.Module):
    """An encoder, two heads and a decoder. `encode` returns the mean and log-variance of z, and a
    call returns logits of x and the KL in nats per image."""

    def __init__(self, encoder: nn.Module, width: int, latent: int, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.mean, self.log_var = nn.Linear(width, latent), nn.Linear(width, latent)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.mean(h), self.log_var(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encode(x)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum() / len(x)
        return self.decoder(z), kl


def vae_loss(network: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    logits, kl = network(x)
    return bce(logits, x.view_as(logits)) + kl


def vae() -> nn.Module:
    encoder = nn.Sequential(nn.Flatten(), *mlp(784, 256, 128))
    return Vae(encoder, 128, 16, nn.Sequential(*mlp(16, 128, 256, 784)))


def conv_vae(side: int = 28) -> Vae:
    """`side` is the height and width of an image, a multiple of 4."""
    grid = (32, side // 4, side // 4)
    cells = math.prod(grid)  # 1568 for MNIST
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(64), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(cells, 400), nn.ReLU(), nn.BatchNorm1d(400)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(20, 400), nn.ReLU(), nn.BatchNorm1d(400)),
        *(nn.Linear(400, cells), nn.ReLU(), nn.BatchNorm1d(cells), nn.Unflatten(1, grid)),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.BatchNorm2d(64), nn.Upsample(scale_factor=2), nn.Conv2d(64, 1, 3, padding=1)),
    )
    return Vae(encoder, 400, 20, decoder)


def cnn(side: int = 32) -> nn.Module:
    """`side` is the height and width of a padded image, a multiple of 16."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding="same"), nn.ReLU(), nn.AvgPool2d(4)),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * (side // 16) ** 2, 10)),
    )


def mlp_classifier(side: int = 28) -> nn.Module:
    """`side` is the height and width of an image. The first layer has no activation."""
    hidden = mlp(128, 128, 128)
    layers = (nn.Linear(side**2, 128), *hidden, nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(nn.Flatten(), *layers)


def wide_autoencoder() -> nn.Module:
    return nn.Sequential(*mlp(784, 512, 128, 2), *mlp(2, 128, 512, 784))


def autoencoder() -> nn.Module:
    return nn.Sequential(*mlp(784, 128, 16), *mlp(16, 128, 784))


RELU = {"activation": "relu"}
CASES = {
    "mlp-classifier": Case(
        "mlp-classifier", {}, 64, mlp_classifier, classifier_loss, target=(0.97, 5.0)
    ),
    "ae": Case(
        *("ae", {**RELU, "hidden": [128], "latent_dim": 16}, 64, autoencoder, autoencoder_loss),
        target=(0.97, 3.5),
    ),
    "vae": Case("vae", RELU, 128, vae, vae_loss, target=(1.0, 2.3)),
    "ae-z2": Case(
        *(
            "ae",
            {**RELU, "hidden": [512, 128], "latent_dim": 2},
            64,
            wide_autoencoder,
            autoencoder_loss,
        ),
        target=(1.0, 1.8),
    ),
    "cnn-classifier": Case(
        "cnn-classifier", {}, 256, cnn, classifier_loss, target=(1.6, 2.4), pad=2
    ),
    "conv-vae": Case(
        "conv-vae", {"padding": "zeros"}, 128, conv_vae, vae_loss, target=(1.25, 1.3), slow=True
    ),
}
