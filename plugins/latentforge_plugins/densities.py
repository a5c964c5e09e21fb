"""Densities of codes, (N, D): what stands for a prior, to sample from and to search under.

Each is a torch distribution, so `log_prob` is in nats, differentiable, and `sample` is seeded by
torch's default generator.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

FITTED = 10_000
"""Codes that a mixture is fitted on at the most: more change nothing that one could see."""


def standard(z: Tensor) -> Distribution:
    """N(0, I) of the codes' dimension, the prior of a VAE."""
    return Independent(Normal(torch.zeros_like(z[0]), torch.ones_like(z[0])), 1)


def fit_gaussian(z: Tensor) -> Distribution:
    """The Gaussian with the mean and the full covariance of the codes, (N, D) with N > 1."""
    # A dead dimension has no variance; a millionth of the largest keeps the matrix invertible.
    covariance = torch.cov(z.T).reshape(z.shape[1], z.shape[1])
    floor = 1e-6 * covariance.diagonal().max().clamp(min=1e-6)
    return MultivariateNormal(z.mean(0), covariance + floor * torch.eye(len(covariance)).to(z))


def fit_mixture(
    z: Tensor, components: int, seed: int, covariance: Literal["full", "diag"] = "full"
) -> MixtureSameFamily:
    """A mixture of Gaussians fitted by scikit-learn's expectation maximisation on codes (N, D).

    The aggregate posterior of a model, and the sampler of Ghosh et al. 2020 (RAE). Fewer codes than
    components give as many components as codes.
    """
    from sklearn.mixture import GaussianMixture

    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:FITTED]
    chosen = z[order.to(z.device)].double().cpu()
    # relative to the codes' spread: a fixed floor would swallow a narrow latent space
    floor = max(1e-6 * float(chosen.var(0).max()), 1e-12)
    model = GaussianMixture(
        min(components, len(chosen)), covariance_type=covariance, reg_covar=floor, random_state=seed
    ).fit(chosen.numpy())
    weights, means, spread = (
        torch.as_tensor(part).to(z) for part in (model.weights_, model.means_, model.covariances_)
    )
    full = spread if covariance == "full" else torch.diag_embed(spread)
    each = MultivariateNormal(means, scale_tril=torch.linalg.cholesky(full))
    return MixtureSameFamily(Categorical(weights), each)
