"""The evidence lower bound, log p(x) >= E log p(x|z) - KL(q(z|x) || p(z)), in nats per image:
Kingma and Welling 2014, eq. 3. z is one sample or the posterior's mean, which gives no bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.latent import Likelihood, Point
from latentforge.metrics import MeanPerImage
from latentforge_plugins.measures import describe_likelihood, likelihood_of


class Recon(MeanPerImage):
    """-log p(x | z) for a sampled z or for the posterior's mean."""

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        likelihood = likelihood_of(context)
        super().__init__(name, lambda seen: recon(seen, likelihood, sampled=sampled))
        self.sampled, self.likelihood = sampled, describe_likelihood(likelihood)
        self.protocol = self.describe(describe_z(sampled))

    def update(self, seen: Seen) -> None:
        super().update(seen)
        if self.sampled and isinstance(seen.posterior, Point):  # its sample is its mode
            self.protocol = self.describe("z the code")

    def describe(self, z: str) -> str:
        return f"nats per image, summed over pixels, {z}, {self.likelihood}"


class Elbo(MeanPerImage):
    """-(recon + kl) for a sampled z or for the posterior's mean."""

    def __init__(self, name: str, context: EvaluateContext, *, sampled: bool) -> None:
        likelihood = likelihood_of(context)
        super().__init__(name, lambda seen: -recon(seen, likelihood, sampled=sampled) - kl(seen))
        self.protocol = (
            "nats per image, -(recon + kl) summed over pixels and latent dimensions, "
            f"{describe_z(sampled)}, {describe_likelihood(likelihood)}"
        )


def describe_z(sampled: bool) -> str:
    return "one seeded posterior sample" if sampled else "z the posterior mean"


def recon(seen: Seen, likelihood: Likelihood, *, sampled: bool) -> Tensor:
    """Return -log p(x | z), (B,). It is computed only once for recon and elbo, because decoding
    dominates the cost."""
    z = seen.z_sample if sampled else seen.z
    key = f"variational_measures: nll, {sampled=}"
    return seen.once(key, lambda: likelihood.nll(seen.model, z, seen.batch.x))


def kl(seen: Seen) -> Tensor:
    """Return KL(q(z | x) || p(z)) summed over the latent dimensions, (B,)."""
    posterior: Any = seen.posterior
    summed: Tensor = posterior.kl().flatten(1).sum(1)
    return summed
