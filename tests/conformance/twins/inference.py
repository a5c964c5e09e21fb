"""A good model with inference options, and twins of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from latentforge import LatentSpec, ModelSpec, Positive, Size
from latentforge.latent import Point

from .common import GoodConfig


@dataclass(frozen=True)
class Guidance:
    """`scale` is a factor."""

    scale: Positive = 1.0


@dataclass(frozen=True)
class Sampler:
    """`steps` is the number of corrections, `solver` their kind, `guidance` their weight."""

    steps: Size = 2
    solver: Literal["tanh", "sin"] = "tanh"
    guidance: Guidance = Guidance()


class Refine(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.shape, self.latent = data.shape, LatentSpec((config.size,))
        self.encoder = nn.Linear(data.size, config.size)
        self.decoder = nn.Linear(config.size, data.size)
        self.register_buffer("seen", torch.zeros(()))

    @property
    def used(self):
        return Sampler() if self.training else self.sampler

    def encode(self, x):
        return Point(self.encoder(x.flatten(1)))

    def decode_logits(self, z):
        for _ in range(self.used.steps):
            z = z + self.used.guidance.scale * getattr(z, self.used.solver)()
        return self.decoder(z).unflatten(1, self.shape)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()


def refine(cls=Refine, **changes):
    spec = {
        "name": "good",
        "summary": "A model with inference options",
        "build": cls,
        "config": GoodConfig,
        "inference": Sampler,
        "provides": {"encode", "decode", "decode_logits"},
        "default_loss": "reconstruction",
    }
    return ModelSpec(**{**spec, **changes})


class TrainsWithIt(Refine):
    """Its weights depend on the number of steps."""

    used = property(lambda self: self.sampler)


class OnlyNested(Refine):
    """Its weights depend on a nested option alone."""

    def encode(self, x):
        return Point(self.sampler.guidance.scale * self.encoder(x.flatten(1)))


class Counts(Refine):
    """A buffer depends on the number of steps of an inference."""

    def decode(self, z):
        self.seen.add_(self.sampler.steps)
        return super().decode(z)


class Path(Refine):
    """It decodes an image for each step."""

    def decode(self, z):
        return torch.cat([super().decode(z)] * self.used.steps, dim=1)


class Diverges(Refine):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return logits if self.used == Sampler() else logits * torch.nan


INFERENCE = {
    "inference options do not change the state": [
        refine(TrainsWithIt),
        refine(OnlyNested),
        refine(Counts),
    ],
    "inference options keep the shapes": [refine(Path), refine(Diverges)],
}
