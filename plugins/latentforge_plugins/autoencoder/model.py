"""The network of `ae`: x - hidden - z - mirrored hidden - logits of x."""

from __future__ import annotations

from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import Point, to_range
from latentforge_plugins.networks import ACTIVATIONS, mlp, network_input

from .config import AutoencoderConfig


class Autoencoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, data: DataSpec) -> None:
        super().__init__()
        self.shape, self.range = data.shape, data.range
        prior = "normal" if config.prior == "normal" else None
        self.latent = LatentSpec(shape=(config.latent_dim,), prior=prior)
        widths = [data.size, *config.hidden, config.latent_dim]
        self.encoder = mlp(widths, config.activation)
        self.decoder = mlp(widths[::-1], config.activation)
        if config.latent_activation != "none":
            self.encoder.append(ACTIVATIONS[config.latent_activation]())

    def encode(self, x: Tensor) -> Point:
        x = network_input(x, self.range)
        return Point(self.encoder(x.flatten(1)))  # (B, latent_dim)

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z).unflatten(1, self.shape)  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)
