"""A good conditional VAE, and twins of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import one_hot

from latentforge import LatentSpec, ModelSpec
from latentforge.latent import DiagonalGaussian, Given

from .common import GoodConfig


class Conditional(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.shape, self.latent = data.shape, LatentSpec((config.size,), "normal")
        self.classes = len(data.classes)
        self.encoder = nn.Linear(data.size + self.classes, 2 * config.size)
        self.decoder = nn.Linear(config.size + self.classes, data.size)

    def given(self, y):
        return Given(self, y)

    def with_label(self, rows, y):
        return torch.cat([rows, one_hot(y, self.classes)], 1)

    def encode(self, x, y):
        return DiagonalGaussian(*self.encoder(self.with_label(x.flatten(1), y)).chunk(2, 1))

    def decode_logits(self, z, y):
        return self.decoder(self.with_label(z, y)).unflatten(1, self.shape)

    def decode(self, z, y):
        return self.decode_logits(z, y).sigmoid()


def conditional(cls=Conditional, provides=(), **changes):
    named = {"encode", "decode", "decode_logits", "kl", "log_prob", "conditional", *provides}
    spec = {
        "name": "good",
        "summary": "A conditional VAE",
        "build": cls,
        "config": GoodConfig,
        "provides": named,
        "default_loss": "elbo",
    }
    return ModelSpec(**{**spec, **changes})


class IgnoresLabel(Conditional):
    """Its encoder depends on the label, its decoder does not."""

    def decode_logits(self, z, y):
        return super().decode_logits(z, torch.zeros_like(y))


class FirstLabel(Conditional):
    """Every row is under the label of the first row."""

    def with_label(self, rows, y):
        return super().with_label(rows, y[:1].expand(len(y)))


class OwnView(Conditional):
    """Its view has the methods, but the core cannot select rows of it."""

    def given(self, y):
        return View(self, y)


class View:
    def __init__(self, model, y):
        self.model, self.y = model, y

    def encode(self, x):
        return self.model.encode(x, self.y)

    def decode(self, z):
        return self.model.decode(z, self.y)

    def decode_logits(self, z):
        return self.model.decode_logits(z, self.y)


class NoGiven(Conditional):
    given = None


class LabelPrior(Conditional):
    """The prior of each class is N(c, I), with a learnt c."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent = LatentSpec((config.size,), "own")
        self.centres = nn.Parameter(torch.randn(self.classes, config.size))

    def prior(self, y):
        return Normal(self.centres[y])


class DecodesAlike(LabelPrior):
    """Its encoder and its prior depend on the label, and p(x | z) does not: a good model."""

    def decode_logits(self, z, y):
        return super().decode_logits(z, torch.zeros_like(y))


class IgnoresLabelEverywhere(DecodesAlike):
    """Nothing depends on the label."""

    def encode(self, x, y):
        return super().encode(x, torch.zeros_like(y))

    def prior(self, y):
        return super().prior(torch.zeros_like(y))


class FirstLabelPrior(LabelPrior):
    """Its prior of every row is that of the first row's class."""

    def prior(self, y):
        return Normal(self.centres[y[:1].expand(len(y))])


class Normal:
    def __init__(self, mean):
        self.mean = mean

    def log_prob(self, z):
        return torch.distributions.Normal(self.mean, 1.0).log_prob(z).sum(1)

    def sample(self, n):
        return self.mean + torch.randn(n, self.mean.shape[1])


class KlNormal(Normal):
    def kl(self, posterior):
        return DiagonalGaussian(posterior.mean - self.mean, posterior.log_var).kl()


class LabelKl(LabelPrior):
    """The KL to its prior has a closed form."""

    def prior(self, y):
        return KlNormal(self.centres[y])


class FirstLabelKl(LabelPrior):
    """The KL of every row is to the prior of the first row's class."""

    def prior(self, y):
        prior = Normal(self.centres[y])
        prior.kl = KlNormal(self.centres[y[:1]]).kl
        return prior


def with_label_prior(cls=LabelPrior):
    named = {"encode", "decode", "decode_logits", "log_prob", "prior", "conditional"}
    return replace(conditional(cls), provides=named)


CONDITIONAL = {
    "the outputs depend on the label": [
        conditional(IgnoresLabel),
        with_label_prior(IgnoresLabelEverywhere),
    ],
    "each row is under its own label": [
        conditional(FirstLabel),
        conditional(OwnView),
        with_label_prior(FirstLabelPrior),
    ],
}
