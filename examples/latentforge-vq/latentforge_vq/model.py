"""The network: two strided convolutions, the codebook, two transposed convolutions."""

import torch
from torch import Tensor, nn

from latentforge import LatentSpec
from latentforge.errors import UsageError


class Quantised:
    """The codes of the encoder and their nearest entries, (B, D, h, w) each."""

    def __init__(self, continuous: Tensor, codebook: Tensor) -> None:
        flat = continuous.movedim(1, -1)  # (B, h, w, D)
        # |c - e|^2 without |c|^2, which does not change the nearest entry
        distance = codebook.square().sum(1) - 2 * flat @ codebook.T  # (B, h, w, K)
        self.entry = distance.detach().argmin(-1)  # (B, h, w)
        self.continuous = continuous
        self.quantised = codebook[self.entry].movedim(-1, 1)

    def mode(self) -> Tensor:
        return self.quantised

    def sample(self) -> Tensor:
        """Return the entries, with a straight-through gradient to the encoder."""
        return self.continuous + (self.quantised - self.continuous).detach()

    def commitment(self) -> Tensor:
        """Return the squared distance with gradients for the encoder only, (B,)."""
        return (self.continuous - self.quantised.detach()).square().flatten(1).sum(1)

    def codebook(self) -> Tensor:
        """Return the squared distance with gradients for the entries only, (B,)."""
        return (self.quantised - self.continuous.detach()).square().flatten(1).sum(1)


class VqVae(nn.Module):
    def __init__(self, config, data) -> None:
        super().__init__()
        if data.kind != "image" or any(side % 4 for side in data.shape[1:]):
            shape = "x".join(map(str, data.shape))
            raise UsageError(f"vq-vae supports images with sides divisible by 4, not {shape}")
        channels, height, width = data.shape
        inner, dim = config.width, config.dim
        self.latent = LatentSpec(shape=(dim, height // 4, width // 4))
        self.codebook = nn.Parameter(torch.randn(config.entries, dim) * 0.5)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, inner, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(inner, dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, inner, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(inner, inner, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(inner, channels, 4, stride=2, padding=1),
        )

    def encode(self, x: Tensor) -> Quantised:
        return Quantised(self.encoder(x), self.codebook)

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def decode(self, z: Tensor) -> Tensor:
        return self.decode_logits(z).sigmoid()
