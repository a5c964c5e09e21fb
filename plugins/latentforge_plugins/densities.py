"""Densities of codes (N, D), used for sampling and search: a model's prior, a fitted Gaussian or
mixture. `log_prob` is in nats and differentiable, and `sample` uses torch's default generator.
Arguments are not validated: the density of a NaN code is NaN."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

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

from latentforge.contracts import Prior
from latentforge.latent import prior_of

MAX_FULL = 64  # dimensions of a mixture with full covariances; beyond it, they cost too much
MAX_DIMENSIONS = 4096  # maximum number of dimensions for which a density is fitted
MAX_FITTED = 10_000  # codes for fitting a mixture; more codes make no visible difference


class Density(Protocol):
    """The part of a torch distribution that is used."""

    def log_prob(self, z: Tensor, /) -> Tensor:
        """The log density of codes (N, D) in nats, (N,)."""

    def sample(self, size: torch.Size, /) -> Tensor:
        """Codes of shape (*size, D)."""


class ModelPrior:
    """The own prior of a model, for flat codes (N, D) of any dtype and device."""

    def __init__(self, prior: Prior, shape: Sequence[int], like: Tensor) -> None:
        self.prior, self.shape, self.like = prior, tuple(shape), like

    def log_prob(self, z: Tensor) -> Tensor:
        codes = z.reshape(-1, *self.shape).to(self.like)
        return self.prior.log_prob(codes).to(z).view(z.shape[:-1])

    def sample(self, size: torch.Size) -> Tensor:
        return self.prior.sample(size.numel()).reshape(*size, -1)


def prior_density(model: Any, z: Tensor) -> Density | None:
    """Return the prior of a model for codes (N, D) of the dtype and device of z, or None."""
    if model.latent.prior == "normal":
        return standard_normal(z)
    prior = prior_of(model)
    return prior and ModelPrior(prior, model.latent.shape, z)


def standard_normal(z: Tensor) -> Distribution:
    """Return the prior of a VAE: N(0, I) in the D dimensions of codes (N, D)."""
    each = Normal(torch.zeros_like(z[0]), torch.ones_like(z[0]), validate_args=False)
    return Independent(each, 1, validate_args=False)


def fit_gaussian(z: Tensor) -> Distribution:
    """Fit a Gaussian with full covariance to codes (N, D), where N > 1."""
    codes = z.double()
    # 1e-6 of the largest variance keeps the matrix invertible if a dead dimension has no variance
    covariance = torch.cov(codes.T).reshape(z.shape[1], z.shape[1])
    floor = 1e-6 * covariance.diagonal().max().clamp(min=1e-6)
    covariance.diagonal().add_(floor)
    root = torch.linalg.cholesky(covariance).to(z)
    return MultivariateNormal(z.mean(0), scale_tril=root, validate_args=False)


def fit_mixture(z: Tensor, components: int, seed: int) -> MixtureSameFamily:
    """Fit a mixture of Gaussians to codes (N, D) with scikit-learn's expectation maximisation, as
    in Ghosh et al. 2020 (RAE). Covariances are full for up to MAX_FULL dimensions and diagonal for
    more. There are at most as many components as codes, and at most one per D + 1 codes if the
    covariances are full: fewer codes determine no covariance."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:MAX_FITTED]
    sample = z[order.to(z.device)].double().cpu()
    full = covariance_type(z.shape[1]) == "full"
    model = GaussianMixture(
        max(1, min(components, len(sample) // (z.shape[1] + 1 if full else 1))),
        covariance_type=covariance_type(z.shape[1]),
        # relative to the variance of the codes: a fixed value would dominate a narrow latent space
        reg_covar=max(1e-6 * float(sample.var(0).max()), 1e-12),
        random_state=seed,
    )
    with warnings.catch_warnings():
        # a fit that stops slightly early is good enough; few codes may form fewer clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(sample.numpy())
    fitted = (model.weights_, model.means_, model.covariances_)
    weights, means, covariances = map(torch.as_tensor, fitted)
    component: Distribution
    if full:
        root = torch.linalg.cholesky(covariances).to(z)
        component = MultivariateNormal(means.to(z), scale_tril=root, validate_args=False)
    else:
        component = Normal(means.to(z), covariances.sqrt().to(z), validate_args=False)
        component = Independent(component, 1, validate_args=False)
    return MixtureSameFamily(Categorical(weights.to(z)), component, validate_args=False)


def covariance_type(dimensions: int) -> Literal["full", "diag"]:
    """Return the covariance type of a mixture for codes with this number of dimensions."""
    return "full" if dimensions <= MAX_FULL else "diag"
