"""The evidence lower bound, log p(x) >= E log p(x|z) - KL(q(z|x) || p(z)), in nats per image:
Kingma and Welling 2014, eq. 3. z is one sample or the posterior's mean, which gives no bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.latent import Likelihood, Point, group_slices
from latentforge.metrics import MeanPerImage
from latentforge_plugins.measures import describe_likelihood, likelihood_of

SAMPLED_TWICE = 1000  # images, from which the sampling error of all is estimated


class Kl(MeanPerImage):
    """The mean KL and, if the code has groups of dimensions, the part of each of them."""

    def __init__(self, context: EvaluateContext) -> None:
        super().__init__("kl", kl)
        self.slices = group_slices(context.model.latent)
        self.groups = dict.fromkeys(self.slices, 0.0)
        self.protocol = "nats per image, summed over latent dimensions, in closed form"
        if self.slices:
            self.protocol += "; kl_NAME: over those of a group"

    def update(self, seen: Seen) -> None:
        super().update(seen)
        posterior: Any = seen.posterior
        values = posterior.kl().flatten(1) if self.slices else None  # (B, D)
        for name, part in self.slices.items():
            self.groups[name] += float(values[:, part].sum())

    def compute(self) -> Mapping[str, float]:
        groups = {f"kl_{name}": total / self.count for name, total in self.groups.items()}
        return {**super().compute(), **groups}


class Bound(MeanPerImage):
    """The mean of a value of -log p(x | z) and the KL, for a sampled z or for the posterior's mean.

    z is sampled once for each image, and twice for the first images: half of the mean square of the
    differences is the variance of a value, from which the standard error of the mean follows.
    """

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        self.likelihood, self.sampled = likelihood_of(context), sampled
        super().__init__(name, self.value)
        self.squares, self.pairs = 0.0, 0

    def value(self, seen: Seen) -> Tensor:
        return recon(seen, self.likelihood, sampled=self.sampled)

    def update(self, seen: Seen) -> None:
        super().update(seen)
        if not self.sampled or self.pairs >= SAMPLED_TWICE:
            return
        first = recon(seen, self.likelihood, sampled=True)
        second = recon(seen, self.likelihood, sampled=True, number=1)
        self.squares += float((first.double() - second.double()).square().sum())
        self.pairs += len(first)

    def compute(self) -> Mapping[str, float]:
        metrics = dict(super().compute())
        if self.squares:  # 0 for codes without a distribution
            variance = self.squares / (2 * self.pairs)
            metrics[f"{self.name}_se"] = math.sqrt(variance / self.count)
        return metrics

    def describe(self, what: str, z: str) -> str:
        error = f"; {self.name}_se: standard error of the sampling" if "sample" in z else ""
        return f"nats per image, {what}, {z}, {describe_likelihood(self.likelihood)}{error}"


class Recon(Bound):
    """-log p(x | z)."""

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        super().__init__(name, context, sampled=sampled)
        self.protocol = self.describe("summed over pixels", describe_z(sampled))

    def update(self, seen: Seen) -> None:
        super().update(seen)
        if self.sampled and isinstance(seen.posterior, Point):  # its sample is its mode
            self.protocol = self.describe("summed over pixels", "z the code")


class Elbo(Bound):
    """-(recon + kl)."""

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        super().__init__(name, context, sampled=sampled)
        what = "-(recon + kl) summed over pixels and latent dimensions"
        self.protocol = self.describe(what, describe_z(sampled))

    def value(self, seen: Seen) -> Tensor:
        return -super().value(seen) - kl(seen)


def describe_z(sampled: bool) -> str:
    return "one seeded posterior sample" if sampled else "z the posterior mean"


def recon(seen: Seen, likelihood: Likelihood, *, sampled: bool, number: int = 0) -> Tensor:
    """Return -log p(x | z), (B,), for the mean or for one of the two samples. It is computed only
    once for recon and elbo, because decoding dominates the cost."""
    z = seen.z_samples[number] if sampled else seen.z
    key = f"variational_measures: nll, {sampled=}, {number=}"
    return seen.once(key, lambda: likelihood.nll(seen.model, z, seen.batch.x))


def kl(seen: Seen) -> Tensor:
    """Return KL(q(z | x) || p(z)) summed over the latent dimensions, (B,)."""
    posterior: Any = seen.posterior
    summed: Tensor = posterior.kl().flatten(1).sum(1)
    return summed
