"""Densities of codes, (N, D): what stands for a prior, to sample from and to search under.

Each is a torch distribution, so `log_prob` is in nats, differentiable, and `sample` is seeded by
torch's default generator. They check no arguments: where a code is NaN, so is its density.
"""

from __future__ import annotations

import warnings
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

FULL = 64
"""Dimensions up to which a mixture has full covariances: beyond, they are dearer than they tell."""

LARGEST = 4096
"""Dimensions that a density is fitted in at the most."""

FITTED = 10_000
"""Codes that a mixture is fitted on at the most: more change nothing that one could see."""


def standard(z: Tensor) -> Distribution:
    """N(0, I) of the codes' dimension, the prior of a VAE."""
    each = Normal(torch.zeros_like(z[0]), torch.ones_like(z[0]), validate_args=False)
    return Independent(each, 1, validate_args=False)


def fit_gaussian(z: Tensor) -> Distribution:
    """The Gaussian with the mean and the full covariance of the codes, (N, D) with N > 1."""
    known = z.double()
    # A dead dimension has no variance; a millionth of the largest keeps the matrix invertible.
    covariance = torch.cov(known.T).reshape(z.shape[1], z.shape[1])
    floor = 1e-6 * covariance.diagonal().max().clamp(min=1e-6)
    covariance.diagonal().add_(floor)
    root = torch.linalg.cholesky(covariance).to(z)
    return MultivariateNormal(z.mean(0), scale_tril=root, validate_args=False)


def fit_mixture(z: Tensor, components: int, seed: int) -> MixtureSameFamily:
    """A mixture of Gaussians fitted by scikit-learn's expectation maximisation on codes (N, D).

    The sampler of Ghosh et al. 2020 (RAE). Covariances are full up to FULL dimensions, diagonal
    above. Fewer codes than components give as many components as codes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:FITTED]
    chosen = z[order.to(z.device)].double().cpu()
    model = GaussianMixture(
        min(components, len(chosen)),
        covariance_type=covariances(z.shape[1]),
        # relative to the codes' spread: a fixed floor would swallow a narrow latent space
        reg_covar=max(1e-6 * float(chosen.var(0).max()), 1e-12),
        random_state=seed,
    )
    with warnings.catch_warnings():
        # one that stopped a little early serves as well; few codes may have fewer clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(chosen.numpy())
    weights, means, spread = map(
        torch.as_tensor, (model.weights_, model.means_, model.covariances_)
    )
    each: Distribution
    if covariances(z.shape[1]) == "full":
        root = torch.linalg.cholesky(spread).to(z)
        each = MultivariateNormal(means.to(z), scale_tril=root, validate_args=False)
    else:
        each = Normal(means.to(z), spread.sqrt().to(z), validate_args=False)
        each = Independent(each, 1, validate_args=False)
    return MixtureSameFamily(Categorical(weights.to(z)), each, validate_args=False)


def covariances(dimensions: int) -> Literal["full", "diag"]:
    """The kind of a mixture's covariances for codes of so many dimensions."""
    return "full" if dimensions <= FULL else "diag"
