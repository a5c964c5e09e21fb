import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def gaussian(parameters):
    mean, log_var = parameters.chunk(2, dim=1)
    return DiagonalGaussian(mean, log_var.clamp(-10, 10))


class TopDown:
    """q(u|x) = q(top|x) q(bottom|top, x), where `bottom(top)` returns the second factor.

    The KL depends on samples of the top, so it has no closed form and there is no `kl()`."""

    def __init__(self, top, bottom):
        self.top, self.bottom = top, bottom

    def mode(self):
        return torch.cat([self.top.mode(), self.bottom(self.top.mode()).mode()], 1)

    def sample(self):
        top = self.top.sample()
        return torch.cat([top, self.bottom(top).sample()], 1)

    def factors(self, u):
        size = self.top.mean.shape[1]
        return u[:, :size], u[:, size:], self.bottom(u[:, :size])

    def log_prob(self, u):
        top, bottom, given_top = self.factors(u)
        return self.top.log_prob(top) + given_top.log_prob(bottom)

    def log_ratio_terms(self, u):
        top, bottom, given_top = self.factors(u)
        return torch.cat([self.top.log_ratio_terms(top), given_top.log_ratio_terms(bottom)], 1)


class TwoLevelVae(nn.Module):
    """p(top) = N(0, I), p(bottom|top) is a Gaussian with learnt mean and variance, and p(x|bottom).

    The code u is the noise of both groups: p(u) = N(0, I), and q(bottom|top, x) is relative to
    p(bottom|top)."""

    def __init__(self, config, data):
        super().__init__()
        self.sizes, self.shape = (config.top, config.bottom), data.shape
        groups = {"top": (config.top,), "bottom": (config.bottom,)}
        self.latent = LatentSpec((sum(self.sizes),), prior="normal", groups=groups)
        width = config.hidden
        self.features = nn.Sequential(mlp(data.size, width, width), nn.SiLU())
        self.top = nn.Linear(width, 2 * config.top)
        self.bottom = mlp(width + config.top, width, 2 * config.bottom)
        self.bottom_prior = mlp(config.top, width, 2 * config.bottom)
        self.decoder = mlp(config.bottom, width, data.size)

    def encode(self, x):
        h = self.features(x.flatten(1))
        return TopDown(
            gaussian(self.top(h)), lambda top: gaussian(self.bottom(torch.cat([h, top], 1)))
        )

    def latents(self, u):
        """The latent variables (top, bottom) for their noise."""
        top, noise = u.split(self.sizes, 1)
        prior = gaussian(self.bottom_prior(top))
        return top, prior.mean + (0.5 * prior.log_var).exp() * noise

    def decode_logits(self, u):
        return self.decoder(self.latents(u)[1]).unflatten(1, self.shape)

    def decode(self, u):
        return self.decode_logits(u).sigmoid()
