"""A good VAE, and twins of it. Those with other codes are in codes.py."""

from __future__ import annotations

import logging
import warnings
from typing import ClassVar

import torch
from torch import nn

from latentforge import DataSpec, LatentSpec, ModelSpec
from latentforge.latent import DiagonalGaussian, Point

from .common import GoodConfig, meddle
from .conditional import CONDITIONAL, NoGiven, conditional
from .inference import INFERENCE


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


class LazyEncoder(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.encoder = nn.LazyLinear(2 * config.size)


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


# ---------------------------------------------------------------- capabilities


def no_module(config, data):
    return "a model"


class Pair(Good):
    def encode(self, x):
        return tuple(self.encoder(x.flatten(1)).chunk(2, 1))


class Unfinished(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.layer = nn.Linear(data.size, len(data.classes))


class Darkens(Good):
    def encode(self, x):
        return super().encode(x.mul_(0.5))


class FalseLayers(Good):
    def layers(self):
        return ["encoder", "nowhere"]


# ---------------------------------------------------------------- shapes


def with_posterior(cls):
    """Return the class of a model that is good except for its posterior."""

    class Other(Good):
        def encode(self, x):
            seen = super().encode(x)
            return cls(seen.mean, seen.log_var)

    return Other


class ShortMode(DiagonalGaussian):
    def mode(self):
        return self.mean[:, :1]


class ShortSample(DiagonalGaussian):
    def sample(self):
        return super().sample()[:, :1]


class DoubleMode(DiagonalGaussian):
    def mode(self):
        return self.mean.double()


class NanMode(DiagonalGaussian):
    def mode(self):
        return self.mean / 0 * 0


class NoLatent(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent = config.size


class FlatLogits(Good):
    def decode_logits(self, z):
        return self.decoder(z)

    def decode(self, z):
        return self.decoder(z).unflatten(1, self.shape).sigmoid()


class FlatImage(Good):
    def decode(self, z):
        return super().decode(z).flatten(1)


class Unbounded(Good):
    def decode(self, z):
        return 10 * self.decode_logits(z)


class Gray(Good):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return logits.mean(1, keepdim=True) if logits.dim() == 4 else logits


class Transposed(Good):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return logits.transpose(2, 3) if logits.dim() == 4 else logits


class ImagesOnly(Good):
    def encode(self, x):
        if x.dim() != 4:
            raise RuntimeError("no image")
        return super().encode(x)


class AsImages(Good):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return logits if logits.dim() == 4 else logits[:, None, None]


class Classifier(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.layer = nn.Linear(data.size, len(data.classes))

    def forward(self, x):
        return self.layer(x.flatten(1))


class OneTooFew(Classifier):
    def forward(self, x):
        return super().forward(x)[:, 1:]


def autoencoder(cls):
    return model(cls, {"encode", "decode", "decode_logits"}, default_loss="reconstruction")


def classifier(cls):
    return model(cls, {"classify"}, default_loss="cross-entropy")


# ---------------------------------------------------------------- gradients


class Unused(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.spare = nn.Linear(2, 2)


class NanGradient(Good):
    def decode_logits(self, z):
        return super().decode_logits(z) + (0 * self.decoder.weight).square().sum().sqrt()


class Uphill(Good):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return 2 * logits.detach() - logits  # the gradient points the other way


class LargeCodes(Good):
    """An autoencoder whose codes are large, so that each step of the usual learning rate is too."""

    def __init__(self, config, data):
        super().__init__(config, data)
        nn.init.zeros_(self.decoder.weight)

    def encode(self, x):
        return Point(1e4 * super().encode(x).mean)


class AgainstTheGradient(LargeCodes):
    def decode_logits(self, z):
        logits = super().decode_logits(z)
        return 2 * logits.detach() - logits


class Detached(Good):
    def decode(self, z):
        return super().decode(z.detach())


class WithoutGradient(Good):
    def decode(self, z):
        with torch.no_grad():
            return super().decode(z)


# ---------------------------------------------------------------- seeds

OWN = torch.Generator().manual_seed(1)


class OwnGenerator(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        nn.init.normal_(self.encoder.weight, generator=OWN)


class AlwaysTheSame(Good):
    def __init__(self, config, data):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(config, data)


# ---------------------------------------------------------------- decoders


class OtherSigmoid(Good):
    def decode(self, z):
        return (0.5 * self.decode_logits(z)).sigmoid()


# ---------------------------------------------------------------- batches


class Squeezed(Good):
    def decode(self, z):
        return super().decode(z).squeeze()


class BatchMean(Good):
    def encode(self, x):
        return super().encode(x - x.mean(0))


# ---------------------------------------------------------------- state and devices


class Hidden(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.shift = torch.randn(config.size)  # not a buffer, and different in each model

    def decode_logits(self, z):
        return super().decode_logits(z + self.shift.to(z.device))


class RunningMean(Good):
    centre = 0.0

    def encode(self, x):
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * float(x.mean())
        return super().encode(x - self.centre)


class Shrinking(Good):
    rate = 1.0

    def after_step(self):  # depends on the number of steps, which a reloaded model does not know
        self.rate *= 0.5
        self.decoder.bias.add_(self.rate)


class LeftBehind(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.scale = torch.ones(config.size)  # stays on the CPU

    def decode_logits(self, z):
        return super().decode_logits(z * self.scale)


class OutputOnCpu(Classifier):
    def forward(self, x):
        return torch.zeros(len(x), 3)


class Shares(Good):
    kept: ClassVar[dict[int, nn.Module]] = {}

    def __init__(self, config, data):
        super().__init__(config, data)
        self.encoder = self.kept.setdefault(data.size, self.encoder)


def meddling(change):
    """Return a model that changes the state of the whole process when it is built."""

    class Meddles(Good):
        def __init__(self, config, data):
            super().__init__(config, data)
            change()

    return model(Meddles)


def tune_cudnn():
    torch.backends.cudnn.benchmark = True


SHAPES = "codes and images have the right shapes [1x28x28]"
MODELS = {
    "it implements what it provides": [
        model(provides={*PROVIDES, "layers"}),
        model(FalseLayers, {*PROVIDES, "layers"}),
        model(no_module),
        model(Pair),
        classifier(Unfinished),
        model(NoLatent),
        conditional(NoGiven),
        model(LazyEncoder),
    ],
    "every capability is known": [model(provides={*PROVIDES - {"decode_logits"}, "decode_logit"})],
    "the batch is not modified": [model(Darkens)],
    SHAPES: [
        model(with_posterior(ShortMode)),
        model(with_posterior(ShortSample)),
        model(with_posterior(DoubleMode)),
        model(with_posterior(NanMode)),
        model(FlatLogits),
        model(FlatImage),
        model(Unbounded),
        classifier(OneTooFew),
    ],
    SHAPES.replace("1x28x28", "3x32x32"): [model(Gray)],
    SHAPES.replace("1x28x28", "1x17x30"): [model(Transposed)],
    SHAPES.replace("1x28x28", "12 numbers"): [model(AsImages), model(ImagesOnly)],
    SHAPES.replace("1x28x28", "example"): [model(Transposed, example=DataSpec((1, 1, 64)))],
    "gradients reach every parameter": [model(Unused), model(NanGradient)],
    "ten steps lower the default loss": [model(Uphill), autoencoder(AgainstTheGradient)],
    "the same seed gives the same weights": [model(OwnGenerator), model(AlwaysTheSame)],
    "decode is the sigmoid of its logits": [model(OtherSigmoid)],
    "images are differentiable in the code": [model(Detached), model(WithoutGradient)],
    "a batch of one works": [model(Squeezed)],
    "an image does not depend on its batch": [model(BatchMean)],
    "state survives saving and loading": [model(Hidden), model(RunningMean)],
    "training continues from the saved state": [model(Shrinking)],
    **CONDITIONAL,
    **INFERENCE,
    "it works on another device": [model(LeftBehind), classifier(OutputOnCpu)],
    "global state is unchanged": [
        meddling(meddle),
        meddling(lambda: torch.set_default_dtype(torch.float64)),
        meddling(lambda: torch.set_num_threads(1)),
        meddling(lambda: torch.autograd.set_detect_anomaly(True)),
        meddling(lambda: torch.use_deterministic_algorithms(True)),
        meddling(tune_cudnn),
        meddling(lambda: torch.set_float32_matmul_precision("high")),
        meddling(lambda: warnings.filterwarnings("ignore")),
        meddling(lambda: logging.getLogger().setLevel("ERROR")),
    ],
    "two models share no parameters": [model(Shares)],
}
