"""The network of `ae`: x - hidden - z - mirrored hidden - logits of x."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import Point

if TYPE_CHECKING:
    from . import AutoencoderConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def mlp(widths: list[int], activation: str) -> nn.Sequential:
    """Linear layers between `widths`, an activation after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, data: DataSpec) -> None:
        super().__init__()
        self.shape = data.shape
        self.latent = LatentSpec(shape=(config.latent_dim,))
        widths = [data.size, *config.hidden, config.latent_dim]
        self.encoder = mlp(widths, config.activation)
        self.decoder = mlp(widths[::-1], config.activation)
        if config.latent_activation != "none":
            self.encoder.append(ACTIVATIONS[config.latent_activation]())

    def encode(self, x: Tensor) -> Point:
        return Point(self.encoder(x.flatten(1)))  # (B, latent_dim)

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z).unflatten(1, self.shape)  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return self.decode_logits(z).sigmoid()
