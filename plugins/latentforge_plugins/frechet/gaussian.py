"""Gaussian fits in float64, and the Fréchet distance between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentforge_plugins.measures import Moments


@dataclass(frozen=True)
class Fit:
    """A Gaussian with `mean` (F,) and `covariance` (F, F), float64 on the CPU."""

    mean: Tensor
    covariance: Tensor


def fit(moments: Moments) -> Fit:
    """Fit a Gaussian with unbiased covariance to moments with `products` over two or more rows."""
    return Fit(moments.mean, moments.scatter / (moments.count - 1))


def fit_rows(rows: Tensor) -> Fit:
    """Fit a Gaussian to two or more rows (N, F), float64."""
    centred = rows - rows.mean(0)
    return Fit(rows.mean(0), centred.T @ centred / (len(rows) - 1))


def square_root(covariance: Tensor) -> Tensor:
    """Return the symmetric S with S S = covariance. Eigenvalues that are negative due to rounding
    are set to 0."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(a: Fit, b: Fit) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982). C1 C2 has the
    eigenvalues of the symmetric matrix C1^(1/2) C2 C1^(1/2), so the square roots of the eigenvalues
    are real, and no matrix root of a product is needed."""
    root = square_root(a.covariance)
    product = root @ b.covariance @ root
    values = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * values.sqrt().sum()
    return max(0.0, float((a.mean - b.mean).square().sum() + traces))
