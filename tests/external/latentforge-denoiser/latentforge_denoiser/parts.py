import math

import torch
from torch import nn
from torch.nn.functional import silu

from latentforge import LatentSpec
from latentforge.contracts import Batch, Terms
from latentforge.errors import UsageError
from latentforge.latent import Given, Point


def noisy(z, noise, angle):
    """The code at `angle` between the data (0) and the noise (pi/2), and its derivative by it."""
    cos, sin = angle.cos(), angle.sin()
    return cos * z + sin * noise, cos * noise - sin * z


class Denoiser(nn.Module):
    """The code of this model is the noise: DDIM without randomness is a map from noise to codes."""

    def __init__(self, config, data, autoencoder):
        super().__init__()
        if not data.classes:
            raise UsageError("latent-diffusion needs labels")
        self.autoencoder = autoencoder
        self.latent = LatentSpec(autoencoder.model.latent.shape, prior="normal")
        size, width = math.prod(self.latent.shape), config.hidden
        self.register_buffer("frequencies", 2.0 ** torch.arange(6))
        self.label = nn.Embedding(len(data.classes) + 1, width)  # the last one: no class
        self.time = nn.Linear(12, width)
        self.first, self.second = nn.Linear(size, width), nn.Linear(width, width)
        self.last = nn.Linear(width, size)

    def denoise(self, z, angle, y):
        """The velocity of the codes z (B, *latent.shape) at `angle` (B,) under the labels y."""
        waves = angle[:, None] * self.frequencies
        context = self.time(torch.cat([waves.cos(), waves.sin()], 1)) + self.label(y)
        hidden = silu(self.first(z.flatten(1)) + context)
        hidden = silu(self.second(hidden) + context)
        return self.last(hidden).unflatten(1, self.latent.shape)

    def move(self, z, y, start, end, guidance):
        """Song et al. 2021: each step turns the pair of code and velocity by the same angle."""
        nothing = torch.full_like(y, self.label.num_embeddings - 1)
        turn = (end - start) / self.sampler.steps
        for i in range(self.sampler.steps):
            angle = torch.full_like(y, start + i * turn, dtype=z.dtype)
            free = self.denoise(z, angle, nothing)
            velocity = free + guidance * (self.denoise(z, angle, y) - free)
            z = math.cos(turn) * z + math.sin(turn) * velocity
        return z

    def given(self, y):
        return Given(self, y)

    def encode(self, x, y):
        batch = Batch(x, y, torch.arange(x.shape[0], device=x.device))
        # without guidance, which would give the codes of images another distribution than the prior
        return Point(self.move(self.autoencoder.encode(batch), y, 0.0, math.pi / 2, 1.0))

    def decode(self, z, y):
        return self.autoencoder.decode(self.move(z, y, math.pi / 2, 0.0, self.sampler.guidance))


class Denoising(nn.Module):
    likelihood = None  # the error is that of codes

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, model, batch, step):
        z = model.autoencoder.encode(batch, sample=True)
        angle = torch.rand(len(z), device=z.device) * (math.pi / 2)
        hidden = torch.rand(len(z), device=z.device) < 0.1  # these learn the codes of all classes
        y = batch.y.masked_fill(hidden, self.classes)
        z, velocity = noisy(z, torch.randn_like(z), angle.view(-1, *[1] * (z.ndim - 1)))
        error = model.denoise(z, angle, y) - velocity
        return Terms({"error": error.square().flatten(1).sum(1).mean()})
