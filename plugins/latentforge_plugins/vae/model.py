"""The network of `vae`: x - encoder - mean and log-variance of z - decoder - logits of x."""

from __future__ import annotations

from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import DiagonalGaussian, to_range
from latentforge_plugins.networks import GaussianHead, mlp, network_input

from .config import VaeConfig


class Vae(nn.Module):
    def __init__(self, config: VaeConfig, data: DataSpec) -> None:
        super().__init__()
        self.shape, self.range = data.shape, data.range
        self.latent = LatentSpec(shape=(config.latent_dim,), prior="normal")
        widths = [data.size, *config.encoder]
        last = len(config.encoder) == 1 if config.activate_last is None else config.activate_last
        self.encoder = mlp(widths, config.activation, activate_last=last)
        self.head = GaussianHead(widths[-1], config.latent_dim, config.latent_activation)
        self.decoder = mlp([config.latent_dim, *config.decoder, data.size], config.activation)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        x = network_input(x, self.range)
        return self.head(self.encoder(x.flatten(1)))

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z).unflatten(1, self.shape)  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)
