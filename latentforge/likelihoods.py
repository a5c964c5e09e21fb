"""Likelihoods of real numbers and counts: Laplace, Poisson and negative binomial.

Bernoulli and Gaussian are in `latentforge.latent`. All are in nats, summed over the values of an
example; the mean of each value is `decode(z)`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from latentforge.errors import UsageError
from latentforge.latent import Likelihood, widened

SMALLEST = 1e-8  # mean of a count; that of a decoder underflows to 0, whose log is infinite
DISPERSIONS = 1e-8, 1e8  # the log-gammas of larger ones cancel: at 1e12, the error is 0.01 nats


class Laplace(Likelihood):
    """Laplace(x; decode(z), scale): sum |x - mean| / scale + D log(2 scale). Its standard deviation
    is sqrt(2) scale. `scale` is a number, or a 0-d tensor that is learnt."""

    def __init__(self, scale: float | Tensor = 1.0) -> None:
        self.scale = scale

    def check(self, x: Tensor) -> None:
        if not bool(x.isfinite().all()):
            raise UsageError(
                "the Laplace likelihood requires finite values; this batch contains NaN or infinity"
            )

    def nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        return laplace_nll(model.decode(z), x, self.scale)

    def describe(self) -> str:
        return f"Laplace of scale {float(self.scale):.4g}"


class Poisson(Likelihood):
    """Poisson(x; decode(z)): sum mean - x log mean + log x!."""

    def check(self, x: Tensor) -> None:
        check_counts("Poisson", x)

    def nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        return poisson_nll(model.decode(z), x)

    def describe(self) -> str:
        return "Poisson"


class NegativeBinomial(Likelihood):
    """NB(x; decode(z), dispersion): counts with the variance mean + mean^2 / dispersion, which
    approach a Poisson distribution for a large dispersion; larger ones than 1e8 count as 1e8. In
    other notations, the dispersion r is the number of successes, and the probability of success is
    r / (r + mean).

    `dispersion` is a number, or a tensor that is learnt: 0-d, or with the shape of an example."""

    def __init__(self, dispersion: float | Tensor) -> None:
        self.dispersion = dispersion

    def check(self, x: Tensor) -> None:
        check_counts("negative binomial", x)

    def nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        return negative_binomial_nll(model.decode(z), x, self.dispersion)

    def describe(self) -> str:
        value = torch.as_tensor(self.dispersion).detach()
        mean = float(value.double().log().mean().exp())
        each = f"geometric mean of {value.numel()}" if value.numel() > 1 else "of all values"
        return f"negative binomial with dispersion {mean:.4g} ({each})"


def check_counts(name: str, x: Tensor) -> None:
    """Raise UsageError unless all values are whole numbers from 0."""
    wrong = ~((x >= 0) & (x == x.round()))  # also NaN
    if bool(wrong.any()):
        raise UsageError(
            f"the {name} likelihood requires whole numbers from 0; this batch contains "
            f"{float(x[wrong][0]):.6g}",
            hint="--set data.range=counts, or --set loss.likelihood=gaussian",
        )


def laplace_nll(mean: Tensor, x: Tensor, scale: float | Tensor) -> Tensor:
    """-log Laplace(x; mean, scale) in nats, (B, ...) to (B,)."""
    distance = (x - widened(mean)).abs().flatten(1).sum(1)
    log_scale = scale.log() if isinstance(scale, Tensor) else math.log(scale)
    return distance / scale + x[0].numel() * (math.log(2) + log_scale)


def poisson_nll(mean: Tensor, x: Tensor) -> Tensor:
    """-log Poisson(x; mean) in nats, (B, ...) to (B,)."""
    mean, x, dtype = precise(mean, x)
    each = mean - x * mean.log() + torch.lgamma(x + 1)
    return each.flatten(1).sum(1).to(dtype)


def negative_binomial_nll(mean: Tensor, x: Tensor, dispersion: float | Tensor) -> Tensor:
    """-log NB(x; mean, dispersion) in nats, (B, ...) to (B,)."""
    mean, x, dtype = precise(mean, x)
    r = torch.as_tensor(dispersion, dtype=mean.dtype, device=mean.device).clamp(*DISPERSIONS)
    log_total = (r + mean).log()
    each = (
        (torch.lgamma(r) + torch.lgamma(x + 1) - torch.lgamma(x + r))
        - r * (r.log() - log_total)
        - x * (mean.log() - log_total)
    )
    return each.flatten(1).sum(1).to(dtype)


def precise(mean: Tensor, x: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Return the mean, not below SMALLEST, and the counts as float64, and the dtype of the result.
    In float32 the difference of two log-gammas of 10,000 has an error of 0.01. Apple's GPUs have no
    float64."""
    mean = widened(mean)
    dtype = mean.dtype
    wide = dtype if mean.device.type == "mps" else torch.float64
    return mean.to(wide).clamp(min=SMALLEST), x.to(wide), dtype
