"""A model whose codes are its scaled pixels, so the exact findings are known."""

from __future__ import annotations

import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian, Point


class Affine(nn.Module):
    """Encodes the first D pixels as z = scale (x - 1/2), with D the size of `latent`; decodes other
    pixels to 1/2. Variational if the log-variances `log_var` (D,) are given."""

    def __init__(self, shape, latent, scale=1.0, log_var=None):
        super().__init__()
        self.shape, self.scale, self.log_var = shape, scale, log_var
        self.latent = LatentSpec(latent, None if log_var is None else "normal")
        self.size = torch.Size(latent).numel()
        self.provides = {"encode", "decode"} if log_var is None else {"encode", "decode", "kl"}

    def encode(self, x):
        z = self.scale * (x.flatten(1)[:, : self.size] - 0.5)
        z = z.reshape(-1, *self.latent.shape)
        if self.log_var is None:
            return Point(z)
        return DiagonalGaussian(z, torch.as_tensor(self.log_var).expand_as(z))

    def decode(self, z):
        x = torch.full((len(z), torch.Size(self.shape).numel()), 0.5)
        x[:, : self.size] += z.flatten(1) / self.scale
        return x.reshape(-1, *self.shape)


class Threshold(nn.Module):
    """Predicts class 1 with probability sigmoid(20 (first pixel - 1/2)), else class 0."""

    def forward(self, x):
        logit = 20 * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], 1)
