import torch
from torch import nn
from torch.nn.functional import normalize

from latentforge import LatentSpec
from latentforge.errors import UsageError


class Quantized:
    """Each vector of the code is the entry nearest to the encoder's output, `raw` (B, D, H, W)."""

    def __init__(self, raw, codebook):
        self.raw = raw
        rows = raw.movedim(1, -1)  # (B, H, W, D)
        # not torch.cdist, which cannot be exported
        self.entry = (codebook.square().sum(1) - 2 * rows @ codebook.T).argmin(-1)
        self.chosen = codebook[self.entry].movedim(-1, 1)

    def mode(self):
        return self.chosen

    def sample(self):
        """The entries, with the gradient of the encoder's outputs (straight through)."""
        return self.raw + (self.chosen - self.raw).detach()

    def commitment(self):
        """Its gradient moves the outputs to their entries, and the entries to their outputs."""
        return (self.raw - self.chosen).square().flatten(1).sum(1)


class Quantizer(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        if data.kind != "image" or data.shape[1] % 4 or data.shape[2] % 4:
            raise UsageError("quantizer supports images whose height and width are multiples of 4")
        channels, height, width = data.shape
        self.latent = LatentSpec((config.dim, height // 4, width // 4))
        self.vectors = nn.Parameter(torch.randn(config.entries, config.dim))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, config.width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(config.width, config.width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(config.width, config.dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.dim, config.width, 3, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(config.width, config.width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(config.width, channels, 4, 2, 1),
        )

    @property
    def codebook(self):
        return normalize(self.vectors, dim=1)

    def encode(self, x):
        return Quantized(normalize(self.encoder(x), dim=1), self.codebook)

    def decode_logits(self, z):
        return self.decoder(z)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()
