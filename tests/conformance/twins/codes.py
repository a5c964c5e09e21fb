"""Twins of a good VAE with other posteriors, priors, groups and codebooks."""

from __future__ import annotations

import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian, standard_normal_log_prob

from .conditional import FirstLabelKl, with_label_prior
from .models import OWN, PROVIDES, Good, model, with_posterior

# ---------------------------------------------------------------- posteriors


class Sampled(DiagonalGaussian):
    def mode(self):
        return self.sample()


class Shifted(DiagonalGaussian):
    def mode(self):
        return self.mean + 1


class Still(DiagonalGaussian):
    def sample(self):
        return self.mean


class OwnNoise(DiagonalGaussian):
    def sample(self):
        return self.mean + torch.randn(self.mean.shape, generator=OWN)


class TwiceKl(DiagonalGaussian):
    def kl(self):
        return 2 * super().kl()


class SummedKl(DiagonalGaussian):
    def kl(self):
        return super().kl().sum(1)


class EstimatedKl(DiagonalGaussian):
    """The mean is that of the KL, and its noise is small."""

    def kl(self):
        return super().kl() + 1e-4 * torch.randn_like(self.mean)


class NoPrior(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent = LatentSpec((config.size,))


class Wide(DiagonalGaussian):
    def sample(self):
        return self.mean + 1.5 * (super().sample() - self.mean)


class NoConstant(DiagonalGaussian):
    def log_prob(self, z):
        return super().log_prob(z) + 0.9 * z.shape[1]  # about log(2 pi) / 2 for each dimension


class EachLogProb(DiagonalGaussian):
    def log_prob(self, z):
        return torch.stack([super().log_prob(z)] * 2, 1)


# ---------------------------------------------------------------- priors


class GoodPrior(nn.Module):
    """N(mean, I)."""

    def __init__(self, size):
        super().__init__()
        self.mean = nn.Parameter(torch.ones(size))

    def log_prob(self, z):
        return standard_normal_log_prob(z - self.mean)

    def sample(self, n):
        return self.mean + torch.randn(n, len(self.mean), device=self.mean.device)


def with_prior(cls=GoodPrior, provides=PROVIDES - {"kl"} | {"prior"}):
    """Return a model that is good except for its own prior."""

    class Other(Good):
        def __init__(self, config, data):
            super().__init__(config, data)
            self.latent = LatentSpec((config.size,), "own")
            self.own = cls(config.size)

        def prior(self):
            return self.own

    return model(Other, provides)


class Unmade(Good):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent = LatentSpec((config.size,), "own")


class OnlyDensity(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.log_prob = standard_normal_log_prob


class OnlySamples(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.sample = lambda n: torch.randn(n, size)


class OneSample(GoodPrior):
    def sample(self, n):
        return super().sample(1)[0]


class OwnNoisePrior(GoodPrior):
    def sample(self, n):
        return self.mean + torch.randn(n, len(self.mean), generator=OWN)


class DetachedPrior(GoodPrior):
    def log_prob(self, z):
        return super().log_prob(z.detach()).detach()


class ElsewherePrior(GoodPrior):
    def sample(self, n):
        return super().sample(n) + 1


class NoConstantPrior(GoodPrior):
    def log_prob(self, z):
        return -0.5 * (z - self.mean).square().sum(1)


class KlPrior(GoodPrior):
    """It knows its KL to a Gaussian."""

    def kl(self, posterior):
        return DiagonalGaussian(posterior.mean - self.mean, posterior.log_var).kl()


class StandardKlPrior(KlPrior):
    def kl(self, posterior):
        return posterior.kl()  # to N(0, I)


class SummedKlPrior(KlPrior):
    def kl(self, posterior):
        return super().kl(posterior).sum(1)


class EstimatedKlPrior(KlPrior):
    def kl(self, posterior):
        kl = super().kl(posterior)
        return kl + 1e-4 * torch.randn_like(kl)


# ---------------------------------------------------------------- terms of the KL


def with_terms(cls=DiagonalGaussian, provides=("prior", "log_prob")):
    """Return a model whose posterior has terms of log q(z|x) - log p(z)."""
    named = {"encode", "decode", "decode_logits", "log_ratio_terms", *provides}
    return model(with_posterior(cls), named)


class ExpectedTerms(DiagonalGaussian):
    """Their sum has the right mean, but is not that of z."""

    def log_ratio_terms(self, z):
        return self.kl()


class SummedTerms(DiagonalGaussian):
    def log_ratio_terms(self, z):
        return super().log_ratio_terms(z).sum(1)


class WithoutVariance(DiagonalGaussian):
    def log_ratio_terms(self, z):
        return super().log_ratio_terms(z) + 0.5 * self.log_var


# ---------------------------------------------------------------- groups and codebooks


class Grouped(Good):
    """Its second group does not reach the decoder."""

    def __init__(self, config, data):
        super().__init__(config, data)
        size = config.size
        self.latent = LatentSpec((2 * size,), "normal", {"used": (size,), "ignored": (size,)})

    def encode(self, x):
        seen = super().encode(x)
        return DiagonalGaussian(seen.mean.repeat(1, 2), seen.log_var.repeat(1, 2))

    def decode_logits(self, z):
        return super().decode_logits(z[:, : z.shape[1] // 2])


class Nearest(DiagonalGaussian):
    """Codes whose every value is the nearest of the codebook's single column."""

    codebook = torch.tensor([[-1.0], [0.0], [2.0]])

    @property
    def entry(self):
        return (self.mean[:, 0, :, None] - self.codebook[:, 0]).abs().argmin(-1)

    def mode(self):
        return self.codebook[self.entry].movedim(-1, 1)


class Coded(Good):
    """Its codes (1, size) are a row of entries of length 1."""

    codebook = Nearest.codebook

    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent = LatentSpec((1, config.size))

    def encode(self, x):
        seen = super().encode(x)
        return Nearest(seen.mean[:, None], seen.log_var[:, None])

    def decode_logits(self, z):
        return super().decode_logits(z.flatten(1))


class NextEntry(Coded):
    codebook = Nearest.codebook.roll(1, 0)


class FewEntries(Coded):
    codebook = Nearest.codebook[:1]


class NarrowEntry(Nearest):
    @property
    def entry(self):
        return super().entry.to(torch.int32)


class NarrowEntries(Coded):
    def encode(self, x):
        seen = super().encode(x)
        return NarrowEntry(seen.mean, seen.log_var)


class FlatEntries(Coded):
    codebook = Nearest.codebook[:, 0]


def coded(cls):
    provides = {"encode", "decode", "decode_logits", "codebook"}
    return model(cls, provides, default_loss="reconstruction")


CODES = {
    "it implements what it provides": [
        model(Unmade, PROVIDES - {"kl"} | {"prior"}),
        with_prior(OnlyDensity),
        with_prior(OnlySamples),
    ],
    "inference is deterministic": [model(with_posterior(Sampled))],
    "the mode is the mean": [model(with_posterior(Shifted))],
    "samples depend only on the seed": [
        model(with_posterior(Still)),
        model(with_posterior(OwnNoise)),
    ],
    "kl matches the posterior": [
        model(with_posterior(TwiceKl)),
        model(with_posterior(SummedKl)),
        model(with_posterior(EstimatedKl)),
        model(NoPrior),
    ],
    "log prob matches the samples": [
        model(with_posterior(Wide)),
        model(with_posterior(NoConstant)),
        model(with_posterior(EachLogProb)),
    ],
    "the prior matches its samples": [
        model(NoPrior),
        with_prior(OneSample),
        with_prior(OwnNoisePrior),
        with_prior(DetachedPrior),
        with_prior(ElsewherePrior),
        with_prior(NoConstantPrior),
    ],
    "the kl to the prior matches the posterior": [
        with_prior(StandardKlPrior),
        with_prior(SummedKlPrior),
        with_prior(EstimatedKlPrior),
        with_label_prior(FirstLabelKl),
    ],
    "log ratio terms sum to the log ratio": [
        with_terms(ExpectedTerms),
        with_terms(SummedTerms),
        with_terms(WithoutVariance),
        with_terms(provides=("prior",)),
        with_terms(provides=("log_prob",)),
    ],
    "every group of the code reaches the image": [model(Grouped)],
    "codes are entries of the codebook": [
        coded(NextEntry),
        coded(FewEntries),
        coded(FlatEntries),
        coded(NarrowEntries),
    ],
}
