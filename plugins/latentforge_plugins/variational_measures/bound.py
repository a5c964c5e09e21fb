"""log p(x) >= E log p(x|z) - KL(q(z|x) || p(z)), in nats for each image: Kingma and Welling 2014,
eq. 3. z is one sample, or the posterior's mean, for which it is no bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.latent import Likelihood
from latentforge.measuring import MeanPerImage
from latentforge_plugins.measures import in_words, likelihood_of


class Recon(MeanPerImage):
    """-log p(x | z); `name` is recon, of a sample, or recon_mean."""

    def __init__(self, name: str, context: EvaluateContext) -> None:
        super().__init__(name, lambda seen: recon(seen, self.likelihood, sampled=name == "recon"))
        self.likelihood = likelihood_of(context)
        self.protocol = (
            f"nats per image, summed over pixels, {which_z(name)}, {in_words(self.likelihood)}"
        )


class Elbo(MeanPerImage):
    """-(recon + kl); `name` is elbo, of a sample, or elbo_mean."""

    def __init__(self, name: str, context: EvaluateContext) -> None:
        super().__init__(
            name, lambda seen: -recon(seen, self.likelihood, sampled=name == "elbo") - kl(seen)
        )
        self.likelihood = likelihood_of(context)
        self.protocol = (
            "nats per image, -(recon + kl) summed over pixels and latent dimensions, "
            f"{which_z(name)}, {in_words(self.likelihood)}"
        )


def which_z(name: str) -> str:
    return "z the posterior mean" if name.endswith("_mean") else "one seeded posterior sample"


def recon(seen: Seen, likelihood: Likelihood, *, sampled: bool) -> Tensor:
    """-log p(x | z), (B,); kept with the batch, because decoding is what an evaluation costs."""
    kept = vars(seen)
    key = f"built-in recon, sampled {sampled}"
    if key not in kept:
        z = seen.z_sample if sampled else seen.z
        kept[key] = likelihood.nll(seen.model, z, seen.batch.x)
    value: Tensor = kept[key]
    return value


def kl(seen: Seen) -> Tensor:
    """KL(q(z | x) || p(z)) summed over the latent dimensions, (B,)."""
    posterior: Any = seen.posterior
    summed: Tensor = posterior.kl().flatten(1).sum(1)
    return summed
