"""A model whose codes are its pixels, scaled: what an explorer finds in it is known exactly."""

from __future__ import annotations

import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian, Point


class Affine(nn.Module):
    """z = scale (x - 1/2) of the first D pixels, D those of `latent`, and back; other pixels are
    1/2. Variational, with the log-variances `log_var` (D,), where they are given."""

    def __init__(self, shape, latent, scale=1.0, log_var=None):
        super().__init__()
        self.shape, self.scale, self.log_var = shape, scale, log_var
        self.latent = LatentSpec(latent, None if log_var is None else "normal")
        self.size = torch.Size(latent).numel()

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
    """Class 1 with probability sigmoid(20 (first pixel - 1/2)), else class 0."""

    def forward(self, x):
        logit = 20 * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], 1)
