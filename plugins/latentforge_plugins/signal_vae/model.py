"""The network of `signal-vae`: two strided 1-D convolutions and a linear layer; mirrored decoder
with nearest upsampling."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.errors import UsageError
from latentforge.latent import DiagonalGaussian, to_range
from latentforge_plugins.networks import (
    ACTIVATIONS,
    GaussianHead,
    describe_examples,
    mlp,
    network_input,
)

from .config import SignalVaeConfig

STRIDE = 4  # the factor by which the two convolutions reduce the length


class SignalVae(nn.Module):
    def __init__(self, config: SignalVaeConfig, data: DataSpec) -> None:
        super().__init__()
        if data.kind != "signal":
            raise UsageError(
                f"signal-vae supports signals, not {describe_examples(data)}",
                hint="the model vae, which supports images, vectors and signals of any size",
            )
        channels, length = data.shape
        self.range = data.range
        self.latent = LatentSpec(shape=(config.latent_dim,), prior="normal")
        left = -length % STRIDE // 2  # padded internally, so all runs share one preprocessing
        self.padding = left, -length % STRIDE - left
        self.inside = slice(left, left + length)
        (a, b), width, activation = config.channels, config.kernel, ACTIVATIONS[config.activation]
        same = {"kernel_size": width, "padding": width // 2}  # keeps the length, or halves it
        cells = math.ceil(length / STRIDE)
        self.encoder = nn.Sequential(
            *(nn.Conv1d(channels, a, stride=2, **same), activation()),
            *(nn.Conv1d(a, b, stride=2, **same), activation()),
            *(nn.Flatten(), nn.Linear(b * cells, config.hidden), activation()),
        )
        self.head = GaussianHead(config.hidden, config.latent_dim, config.latent_activation)
        self.decoder = nn.Sequential(
            mlp([config.latent_dim, config.hidden, b * cells], config.activation),
            *(activation(), nn.Unflatten(1, (b, cells))),
            *(nn.Upsample(scale_factor=2), nn.Conv1d(b, a, **same), activation()),
            *(nn.Upsample(scale_factor=2), nn.Conv1d(a, channels, **same)),
        )

    def encode(self, x: Tensor) -> DiagonalGaussian:
        x = network_input(x, self.range)
        if any(self.padding):  # repeats the first and the last value, which has no jump
            x = F.pad(x, self.padding, mode="replicate")
        return self.head(self.encoder(x))

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z)[..., self.inside]  # (B, C, L)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)
