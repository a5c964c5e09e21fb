import torch
from torch.special import ndtr, ndtri

from latentforge.latent import noise_like, standard_normal_log_prob

ROUNDING = 1e-5  # of the bounds of intervals


class Intervals:
    """q(u|x) is N(0, I) where ndtr(u) is in [low, low + size], and 0 elsewhere; (B, N) each.

    The size is the probability of an entry, so the KL to N(0, I) is exactly -log of it."""

    def __init__(self, low, size):
        self.low, self.size = low, size

    def at(self, noise):
        # detached: within the interval, no u changes the image
        place = self.low.detach() + self.size.detach() * ndtr(noise)
        return ndtri(place.clamp(1e-6, 1 - 1e-6))

    def mode(self):
        return self.at(torch.zeros_like(self.low))  # the middle: all of the interval has one image

    def sample(self):
        return self.at(noise_like(self.low))

    def kl(self):
        return -self.size.log()

    def log_prob(self, u):
        place = ndtr(u) - self.low
        inside = (place > -ROUNDING) & (place < self.size + ROUNDING)
        density = standard_normal_log_prob(u) + self.kl().sum(1)
        return density.masked_fill(~inside.all(1), -torch.inf)
