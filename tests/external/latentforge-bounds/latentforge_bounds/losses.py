import math

import torch
from torch import nn

from latentforge.contracts import Terms
from latentforge.latent import Bernoulli, log_ratio, prior_of, select_rows


class ImportanceWeighted(nn.Module):
    """Burda et al. 2016: log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)."""

    likelihood = Bernoulli()

    def __init__(self, config):
        super().__init__()
        self.samples = config.samples

    def forward(self, model, batch, step):
        posterior = model.encode(batch.x)
        codes = [posterior.sample() for _ in range(self.samples)]  # K of (B, *latent)
        kl = torch.stack([log_ratio(model, posterior, z) for z in codes])  # (K, B)
        rows = torch.arange(len(batch.x), device=batch.x.device).repeat(self.samples)  # (K B,)
        copies = select_rows(model, rows)
        recon = self.likelihood.nll(copies, torch.cat(codes), batch.x[rows]).view_as(kl)
        bound = (-recon - kl).logsumexp(0) - math.log(self.samples)  # (B,)
        values = {"bound": -bound.mean(), "recon": recon.mean(), "kl": kl.mean()}
        return Terms(values, {"recon": 0.0, "kl": 0.0})


class WaeMmd(nn.Module):
    """Tolstikhin et al. 2018, with the inverse multiquadric kernel."""

    likelihood = Bernoulli()

    def __init__(self, config):
        super().__init__()
        self.weight = config.weight

    def forward(self, model, batch, step):
        z = model.encode(batch.x).sample()
        recon = self.likelihood.mean_nll(model, z, batch.x)
        prior = prior_of(model).sample(len(z))
        return Terms(
            {"recon": recon, "mmd": mmd(z.flatten(1), prior.flatten(1))}, {"mmd": self.weight}
        )


def mmd(one, other):
    """Return the unbiased estimate of the squared MMD between two samples (B, D)."""
    n = len(one)
    pairs = max(n * (n - 1), 1)  # a batch of one has no pairs of codes
    same = kernel(one, one) + kernel(other, other)
    return (same.sum() - same.diagonal().sum()) / pairs - 2 * kernel(one, other).mean()


def kernel(a, b):
    """Return sum_s C_s / (C_s + |a - b|^2) with C_s = 2 D s: (A, B)."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    scales = [2 * a.shape[1] * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
    return sum(c / (c + squares.clamp(min=0)) for c in scales)
