"""The evidence lower bound, log p(x) >= E log p(x|z) - KL(q(z|x) || p(z)), in nats per image:
Kingma and Welling 2014, eq. 3. z is one sample or the posterior's mean, which gives no bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.latent import Likelihood, Point, closed_form_kl, group_slices, log_ratio
from latentforge.metrics import MeanPerImage
from latentforge_plugins.measures import describe_likelihood, likelihood_of

SAMPLED_TWICE = 1000  # images, from which the sampling error of all is estimated
ESTIMATED = (
    "nats per image, mean of log q(z|x) - log p(z), one seeded posterior sample; kl_se: standard "
    "error of the sampling"
)
ESTIMATED_GROUPS = (
    "; kl_NAME: mean of the terms of the dimensions of a group, for the same sample, with "
    "kl_NAME_se"
)


class Bound(MeanPerImage):
    """The mean of a value of -log p(x | z) and the KL, for a sampled z or for the posterior's mean.

    z is sampled once for each image, and twice for the first images: half of the mean square of the
    differences is the variance of a value, from which the standard error of the mean follows.
    """

    def __init__(self, name: str, likelihood: Likelihood | None, *, sampled: bool) -> None:
        self.likelihood, self.sampled = likelihood, sampled
        super().__init__(name, self.value)
        self.squares, self.pairs = 0.0, 0

    def value(self, seen: Seen, number: int = 0) -> Tensor:
        """The value of each image, (B,), for the sample with this number, 0 or 1."""
        raise NotImplementedError

    def varying(self, seen: Seen, number: int) -> Tensor:
        """The part of the value that depends on the sample, up to its sign: (B,)."""
        return self.value(seen, number)

    def update(self, seen: Seen) -> None:
        super().update(seen)
        if not self.sampled or self.pairs >= SAMPLED_TWICE:
            return
        first, second = (self.varying(seen, number).double() for number in (0, 1))
        self.squares += float((first - second).square().sum())
        self.pairs += len(first)

    def compute(self) -> Mapping[str, float]:
        metrics = dict(super().compute())
        if self.squares:  # 0 for codes without a distribution
            variance = self.squares / (2 * self.pairs)
            metrics[f"{self.name}_se"] = math.sqrt(variance / self.count)
        return metrics

    def describe(self, what: str, z: str) -> str:
        assert self.likelihood is not None
        error = f"; {self.name}_se: standard error of the sampling" if "sample" in z else ""
        return f"nats per image, {what}, {z}, {describe_likelihood(self.likelihood)}{error}"


class Recon(Bound):
    """-log p(x | z)."""

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        super().__init__(name, likelihood_of(context), sampled=sampled)
        self.protocol = self.describe("summed over pixels", describe_z(sampled))

    def value(self, seen: Seen, number: int = 0) -> Tensor:
        return recon(seen, self.likelihood, sampled=self.sampled, number=number)

    def update(self, seen: Seen) -> None:
        super().update(seen)
        if self.sampled and isinstance(seen.posterior, Point):  # its sample is its mode
            self.protocol = self.describe("summed over pixels", "z the code")


class Kl(Bound):
    """KL(q(z | x) || p(z)) and, if the code has groups of dimensions, the part of each of them: in
    closed form, or estimated if the posterior has terms for each dimension."""

    def __init__(self, context: EvaluateContext) -> None:
        super().__init__("kl", None, sampled=True)
        slices = group_slices(context.model.latent)
        self.groups = [GroupKl(name, part) for name, part in slices.items()]
        self.has_terms = "log_ratio_terms" in context.provides
        self.protocol = "nats per image, summed over latent dimensions, in closed form"
        if slices:
            self.protocol += "; kl_NAME: over those of a group"

    def value(self, seen: Seen, number: int = 0) -> Tensor:
        return kl(seen, number)

    def update(self, seen: Seen) -> None:
        self.sampled = exact_kl(seen) is None
        if self.sampled:
            if not self.has_terms:
                self.groups = []
            self.protocol = ESTIMATED + (ESTIMATED_GROUPS if self.groups else "")
        super().update(seen)
        for group in self.groups:
            group.sampled = self.sampled
            group.update(seen)

    def compute(self) -> Mapping[str, float]:
        metrics = dict(super().compute())
        for group in self.groups:
            metrics |= group.compute()
        return metrics


class GroupKl(Bound):
    """The part of the KL of a group of dimensions."""

    def __init__(self, name: str, part: slice) -> None:
        super().__init__(f"kl_{name}", None, sampled=True)
        self.part = part

    def value(self, seen: Seen, number: int = 0) -> Tensor:
        """The value of each dimension, (B, D), which the mean per image sums."""
        return kl_of_dimensions(seen, number)[:, self.part]

    def varying(self, seen: Seen, number: int) -> Tensor:
        return self.value(seen, number).sum(1)


class Elbo(Bound):
    """-(recon + kl)."""

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        super().__init__(name, likelihood_of(context), sampled=sampled)
        what = "-(recon + kl) summed over pixels and latent dimensions"
        self.protocol = self.describe(what, describe_z(sampled))

    def value(self, seen: Seen, number: int = 0) -> Tensor:
        value = recon(seen, self.likelihood, sampled=self.sampled, number=number)
        return -value - kl(seen, number)

    def varying(self, seen: Seen, number: int) -> Tensor:
        value = recon(seen, self.likelihood, sampled=True, number=number)
        # a KL in closed form cancels, but would round the difference
        return value if exact_kl(seen) is not None else value + kl(seen, number)


def describe_z(sampled: bool) -> str:
    return "one seeded posterior sample" if sampled else "z the posterior mean"


def recon(seen: Seen, likelihood: Likelihood, *, sampled: bool, number: int = 0) -> Tensor:
    """Return -log p(x | z), (B,), for the mean or for one of the two samples. It is computed only
    once for recon and elbo, because decoding dominates the cost."""
    z = seen.z_samples[number] if sampled else seen.z
    key = f"variational_measures: nll, {sampled=}, {number=}"
    return seen.once(key, lambda: likelihood.nll(seen.model, z, seen.batch.x))


def exact_kl(seen: Seen) -> Tensor | None:
    """Return the KL of each dimension in closed form, (B, *latent.shape), or None."""
    key = "variational_measures: exact kl"
    return seen.once(key, lambda: closed_form_kl(seen.model, seen.posterior))


def kl(seen: Seen, number: int = 0) -> Tensor:
    """Return KL(q(z | x) || p(z)) summed over the latent dimensions, (B,), in closed form if there
    is one, else estimated with one of the two samples."""
    exact = exact_kl(seen)
    if exact is not None:
        return exact.flatten(1).sum(1)
    key = f"variational_measures: kl, {number=}"
    return seen.once(key, lambda: log_ratio(seen.model, seen.posterior, seen.z_samples[number]))


def kl_of_dimensions(seen: Seen, number: int) -> Tensor:
    """Return the KL of each dimension, (B, D), in closed form if there is one, else the terms that
    the posterior has for one of the two samples."""
    posterior: Any = seen.posterior
    each = exact_kl(seen)
    if each is None:
        key = f"variational_measures: terms, {number=}"
        each = seen.once(key, lambda: posterior.log_ratio_terms(seen.z_samples[number]))
    return each.flatten(1)
