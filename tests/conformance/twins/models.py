"""A good VAE, and what each check of models is there for."""

from __future__ import annotations

import torch
from torch import nn

from latentforge import LatentSpec, ModelSpec
from latentforge.latent import DiagonalGaussian

from .common import GoodConfig, meddle


class Good(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.shape, self.latent = data.shape, LatentSpec((config.size,), "normal")
        self.encoder = nn.Linear(data.size, 2 * config.size)
        self.decoder = nn.Linear(config.size, data.size)

    def encode(self, x):
        return DiagonalGaussian(*self.encoder(x.flatten(1)).chunk(2, 1))

    def decode_logits(self, z):
        return self.decoder(z).unflatten(1, self.shape)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()


PROVIDES = {"encode", "decode", "decode_logits", "kl", "log_prob", "diagonal_gaussian"}


def model(cls=Good, provides=PROVIDES, **changes):
    spec = {
        "name": "good",
        "summary": "A VAE",
        "build": cls,
        "config": GoodConfig,
        "provides": provides,
        "default_loss": "elbo",
    }
    return ModelSpec(**{**spec, **changes})


class WrongShape(Good):
    def decode_logits(self, z):
        return self.decoder(z)  # flat


class Unused(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.spare = nn.Linear(2, 2)


class Uphill(Good):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return 2 * logits.detach() - logits  # the gradient points the other way


OWN = torch.Generator().manual_seed(1)


class OwnGenerator(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        nn.init.normal_(self.encoder.weight, generator=OWN)


class Sampled(DiagonalGaussian):
    def mode(self):
        return self.sample()


class Draws(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Sampled(seen.mean, seen.log_var)


class Shifted(DiagonalGaussian):
    def mode(self):
        return self.mean + 1


class OffMean(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Shifted(seen.mean, seen.log_var)


class Still(DiagonalGaussian):
    def sample(self):
        return self.mean


class NoSpread(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Still(seen.mean, seen.log_var)


class Twice(DiagonalGaussian):
    def kl(self):
        return 2 * super().kl()


class WrongKl(Good):
    def encode(self, x):
        seen = super().encode(x)
        return Twice(seen.mean, seen.log_var)


class OtherSigmoid(Good):
    def decode(self, z):
        return (0.5 * self.decode_logits(z)).sigmoid()


class Detached(Good):
    def decode(self, z):
        return super().decode(z.detach())


class Squeezed(Good):
    def decode(self, z):
        return super().decode(z).squeeze()


class BatchMean(Good):
    def encode(self, x):
        return super().encode(x - x.mean(0))


class Hidden(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.shift = torch.randn(config.size)  # no buffer, and another one in each model

    def decode_logits(self, z):
        return super().decode_logits(z + self.shift.to(z.device))


class LeftBehind(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.scale = torch.ones(config.size)  # stays on the CPU

    def decode_logits(self, z):
        return super().decode_logits(z * self.scale)


class Meddles(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        meddle()


SHARED: dict[int, nn.Module] = {}


class Shares(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.encoder = SHARED.setdefault(data.size, self.encoder)


class TakesNothing(Good):
    def __init__(self, config, data):
        from latentforge.errors import UsageError

        raise UsageError("it takes nothing")


MODELS = {
    "it has what it provides": model(provides={*PROVIDES, "layers"}),
    "codes and images have their shapes [1x28x28]": model(WrongShape),
    "gradients reach every parameter": model(Unused),
    "one step lowers the default loss": model(Uphill),
    "the same seed gives the same weights": model(OwnGenerator),
    "inference draws nothing": model(Draws),
    "the mode is the mean": model(OffMean),
    "samples follow the seed": model(NoSpread),
    "the kl is that of its posterior": model(WrongKl),
    "decode is the sigmoid of its logits": model(OtherSigmoid),
    "images are differentiable in the code": model(Detached),
    "a batch of one works": model(Squeezed),
    "an image does not depend on its batch": model(BatchMean),
    "state survives saving and loading": model(Hidden),
    "it moves to another device": model(LeftBehind),
    "nothing global is changed": model(Meddles),
    "two models share nothing": model(Shares),
    "codes and images have their shapes [3x32x32]": model(TakesNothing),
    "codes and images have their shapes [1x17x30]": model(WrongShape),
    "codes and images have their shapes [12 numbers]": model(TakesNothing),
}
