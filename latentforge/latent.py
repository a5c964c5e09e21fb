"""Posteriors, priors, likelihoods (in nats), views of conditional models, and interpolation.

A likelihood sums over the values of an image. `nll` returns one value per image, for measures and
importance sampling; `mean_nll` returns the mean over the batch, for losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from itertools import chain
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from latentforge.contracts import LatentSpec, Posterior, Prior
from latentforge.contracts.views import Given as Given
from latentforge.contracts.views import GivenClass as GivenClass
from latentforge.contracts.views import given as given
from latentforge.contracts.views import select_rows as select_rows
from latentforge.errors import UsageError
from latentforge.seeding import noise_like as noise_like


def widened(values: Tensor) -> Tensor:
    """Convert 16-bit values, which networks return under autocast, to float32, so that sums over
    pixels are exact enough. Other values are unchanged."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


LOG_COUNT = 24 * math.log(2)
"""The log of the largest mean of counts: float32 represents all whole numbers up to 2^24."""


def to_range(raw: Tensor, data_range: tuple[float, float] | None) -> Tensor:
    """Map the raw output of a network to the range of the data (DataSpec.range): by the sigmoid to
    (0, 1), by tanh to (-1, 1), by exp to the mean of counts; real numbers are unchanged.

    exp is the canonical link of a Poisson likelihood. With softplus, a network must output a mean
    of 1000 itself, which takes thousands of steps."""
    if data_range is None:
        return raw
    low, high = data_range
    if math.isinf(high):
        return raw.clamp(max=LOG_COUNT).exp()
    return raw.sigmoid() if low == 0 else raw.tanh()


class Point:
    """A posterior without variance: the code itself, for a plain autoencoder."""

    def __init__(self, z: Tensor) -> None:
        self.z = z

    def mode(self) -> Tensor:
        return self.z

    def sample(self) -> Tensor:
        return self.z


LOG_VAR_RANGE = (-30.0, 20.0)
"""The range to which a log-variance is clamped, so that its exponential stays finite."""


class DiagonalGaussian:
    """q(z | x) = N(z; mean, diag exp(log_var)), with the prior p(z) = N(0, I).

    `mean` and `log_var`: (B, *latent.shape). Kingma and Welling 2014, appendix B.
    """

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        self.mean = widened(mean)
        self.log_var = widened(log_var).clamp(*LOG_VAR_RANGE)

    def mode(self) -> Tensor:
        return self.mean

    def sample(self) -> Tensor:
        """mean + exp(log_var / 2) eps with eps ~ N(0, I), differentiable in mean and log_var."""
        return torch.addcmul(self.mean, (0.5 * self.log_var).exp(), noise_like(self.mean))

    def kl(self) -> Tensor:
        """KL(q || p) = (mean^2 + exp(log_var) - 1 - log_var) / 2 of each dimension, in nats."""
        return 0.5 * (self.mean.square() + self.log_var.exp() - 1.0 - self.log_var)

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """KL(q || other) of each dimension, in nats, for example to a learnt prior."""
        difference = self.log_var - other.log_var
        squared = (self.mean - other.mean).square() * (-other.log_var).exp()
        return 0.5 * (squared + difference.exp() - 1.0 - difference)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x) in nats, summed over the latent dimensions: (B,)."""
        squared = (z - self.mean).square() * (-self.log_var).exp()
        return -0.5 * (squared + self.log_var + math.log(2 * math.pi)).flatten(1).sum(1)

    def log_ratio_terms(self, z: Tensor) -> Tensor:
        """log q(z | x) - log p(z) of each dimension, in nats: (B, *latent.shape)."""
        squared = (z - self.mean).square() * (-self.log_var).exp()
        return 0.5 * (z.square() - squared - self.log_var)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the latent dimensions: (B, *latent.shape) to (B,)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


class StandardNormal:
    """The prior N(0, I) of codes of this `shape`. It samples on `device`."""

    def __init__(self, shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.shape, self.device = tuple(shape), torch.device(device)

    def log_prob(self, z: Tensor) -> Tensor:
        return standard_normal_log_prob(z)

    def sample(self, n: int) -> Tensor:
        return torch.randn(n, *self.shape, device=self.device)


def prior_of(model: Any) -> Prior | None:
    """Return the prior of a model on the model's device, or None if the model has no prior."""
    kind = model.latent.prior
    if kind == "own":
        own: Prior = model.prior()
        return own
    if kind != "normal":
        return None
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return StandardNormal(model.latent.shape, "cpu" if tensor is None else tensor.device)


def closed_form_kl(model: Any, posterior: Posterior) -> Tensor | None:
    """Return KL(q(z|x) || p(z)) of each latent dimension in nats, (B, *latent.shape), or None if it
    has no closed form: `posterior.kl()` for the prior N(0, I), and `prior.kl(posterior)` for the
    model's own prior.

    For a model that provides `variational`.
    """
    return _closed_form_kl(model, posterior, _own_prior(model))


def kl_values(model: Any, posterior: Posterior, z: Tensor) -> Tensor:
    """Return what `closed_form_kl` returns, (B, *latent.shape), if the KL has a closed form, else
    what `kl_estimate` returns, (B,). It calls `model.prior()` only once.

    For a model that provides `variational`.
    """
    own = _own_prior(model)
    exact = _closed_form_kl(model, posterior, own)
    if exact is not None:
        return exact
    return _log_ratio(posterior, prior_of(model) if own is None else own, z)


def kl_estimate(model: Any, posterior: Posterior, z: Tensor) -> Tensor:
    """Return KL(q(z|x) || p(z)) of each image in nats, (B,): in closed form if there is one, else
    the unbiased estimate log q(z|x) - log p(z) from the samples z (B, *latent.shape) of q(z|x).

    For a model that provides `variational`.
    """
    values = kl_values(model, posterior, z)
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def declared_kl(model: Any, posterior: Any, provides: Set[str]) -> Tensor | None:
    """Return KL(q(z|x) || p(z)) of each latent dimension in nats, (B, *latent.shape), in closed
    form, or None. `provides` are the capabilities of the model, which may be any model: a posterior
    may have a method `kl`, but only the capability promises a KL to the prior."""
    if "kl" in provides:
        exact: Tensor = posterior.kl()
        return exact
    own = "variational" in provides and model.latent.prior == "own"
    return closed_form_kl(model, posterior) if own else None


def log_ratio(model: Any, posterior: Any, z: Tensor) -> Tensor:
    """Return log q(z|x) - log p(z) in nats, (B,). For a model that provides `prior` and `log_prob`.

    Raises UsageError if the model has no prior.
    """
    return _log_ratio(posterior, prior_of(model), z)


def _own_prior(model: Any) -> Any:
    """The model's own prior, or None."""
    return model.prior() if model.latent.prior == "own" else None


def _closed_form_kl(model: Any, posterior: Any, own: Any) -> Tensor | None:
    """The KL of each dimension to `own`, the model's own prior, or to N(0, I)."""
    if model.latent.prior != "own":
        kl: Callable[[], Tensor] | None = getattr(posterior, "kl", None)
        return kl() if kl is not None else None
    to_own: Callable[[Any], Tensor] | None = getattr(own, "kl", None)
    return to_own(posterior) if to_own is not None else None


def _log_ratio(posterior: Any, prior: Prior | None, z: Tensor) -> Tensor:
    if prior is None:
        raise UsageError("the model has no prior", hint="a model that provides `prior`")
    difference: Tensor = posterior.log_prob(z) - prior.log_prob(z)
    return difference


class Likelihood(Protocol):
    """p(x | z) of a decoder."""

    def check(self, x: Tensor) -> None:
        """Raise UsageError if x is outside the support. Synchronizes the device."""

    def nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        """-log p(x | z) in nats, summed over the values of each image: (B,)."""

    def mean_nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        """The mean of `nll` over the batch: (). A likelihood may override it to use one kernel."""
        return self.nll(model, z, x).mean()


class Bernoulli(Likelihood):
    """Each decoded value p is the probability of a white pixel: -sum (x log p + (1-x) log(1-p)).

    It is computed from logits, so it stays finite where the sigmoid saturates. For grey values it
    is the usual cross-entropy, which is not a normalized density: such values are comparable only
    with each other.
    """

    def check(self, x: Tensor) -> None:
        low, high = (float(v) for v in x.aminmax())
        if not (low >= 0.0 and high <= 1.0):  # also rejects NaN
            raise UsageError(
                f"the Bernoulli likelihood requires values from 0 to 1; "
                f"this batch has values from {low:g} to {high:g}",
                hint="scale the data to [0, 1], or --set loss.likelihood=gaussian",
            )

    def nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        return bernoulli_nll(model.decode_logits(z), x)

    def mean_nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        logits = widened(model.decode_logits(z))
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class Gaussian(Likelihood):
    """N(x; decode(z), sigma^2 I): sum (x - mean)^2 / (2 sigma^2) + D/2 log(2 pi sigma^2).

    `sigma` is a number, or a 0-d tensor that is learnt (Rybkin, Daniilidis and Levine 2021).
    """

    def __init__(self, sigma: float | Tensor = 1.0) -> None:
        self.sigma = sigma

    def check(self, x: Tensor) -> None:
        if not bool(x.isfinite().all()):
            raise UsageError(
                "the Gaussian likelihood requires finite values; "
                "this batch contains NaN or infinity"
            )

    def nll(self, model: Any, z: Tensor, x: Tensor) -> Tensor:
        return gaussian_nll(model.decode(z), x, self.sigma)


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log Bernoulli(x; sigmoid(logits)) in nats, (B, ...) to (B,)."""
    each = F.binary_cross_entropy_with_logits(widened(logits), x, reduction="none")
    return each.flatten(1).sum(1)


def gaussian_nll(mean: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
    """-log N(x; mean, sigma^2 I) in nats, including the constant, (B, ...) to (B,)."""
    squared = (x - widened(mean)).square().flatten(1).sum(1)
    log_sigma = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
    constant = x[0].numel() * (0.5 * math.log(2 * math.pi) + log_sigma)
    return squared / (2 * sigma**2) + constant


def group_slices(latent: LatentSpec) -> dict[str, slice]:
    """The part of a flat code (D,) that each group of dimensions is, by name, in order."""
    slices, start = {}, 0
    for name, shape in latent.groups.items():
        slices[name] = slice(start, start := start + math.prod(shape))
    return slices


def dimension_names(latent: LatentSpec) -> list[str]:
    """The name of each value of a flattened code: `z5`, or `top z5` if the code has groups, where
    the number counts within the group."""
    names = [
        f"{name} z{number}"
        for name, part in group_slices(latent).items()
        for number in range(part.stop - part.start)
    ]
    return names or [f"z{number}" for number in range(math.prod(latent.shape))]


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Interpolate spherically between codes: angle and length (from |a| to |b|) change linearly.

    a, b: (*latent), t: (T,) in [0, 1]; returns (T, *latent). Falls back to the straight line if the
    angle is undefined, near 0 or near pi. Shoemake 1985, with separately interpolated lengths.
    """
    u, v = a.flatten(), b.flatten()
    lengths = u.norm(), v.norm()
    weights = t.reshape(-1, 1)  # (T, 1)
    straight = (1 - weights) * u + weights * v  # (T, D)
    if not lengths[0] > 0 or not lengths[1] > 0:
        return straight.reshape(-1, *a.shape)
    cosine = (u @ v / (lengths[0] * lengths[1])).clamp(-1.0, 1.0)
    angle = torch.arccos(cosine)
    if angle.sin().abs() < 1e-4:
        return straight.reshape(-1, *a.shape)
    direction = (
        torch.sin((1 - weights) * angle) * u / lengths[0]
        + torch.sin(weights * angle) * v / lengths[1]
    ) / angle.sin()
    length = (1 - weights) * lengths[0] + weights * lengths[1]
    arc: Tensor = length * direction
    return arc.reshape(-1, *a.shape)
