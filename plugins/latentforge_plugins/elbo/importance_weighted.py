"""The loss `iwae`: -L_K. L_K = E log (1/K) sum_k p(x | z_k) p(z_k) / q(z_k | x) <= log p(x)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentforge import DataSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import Likelihood, Posterior, log_ratio, select_rows
from latentforge_plugins.reconstruction.loss import Reconstruction

from .config import IwaeConfig

VALUES = 2**19  # of all images of a decoder call, which is faster than a call for each sample


class Iwae(Reconstruction):
    """The importance-weighted bound (Burda, Grosse and Salakhutdinov 2016), estimated with K
    samples of z. `recon` and `kl` are the means over the samples: -ELBO = recon + kl. They are
    logged, but only `iwae` is trained on."""

    config: IwaeConfig

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        likelihood, posterior = self.likelihood, model.encode(batch.x)
        if step.first:
            likelihood.check(batch.x)
        recon, kl = self.estimates(model, posterior, batch.x, likelihood)  # (K, B) each
        log_weights = -(recon + kl)
        bound = log_weights.logsumexp(0) - math.log(self.config.samples)  # (B,)
        terms = self.with_parameters(recon.detach().mean(), likelihood)
        values = {"iwae": -bound.mean(), "kl": kl.detach().mean()}
        weights = {**terms.weights, "recon": 0.0, "kl": 0.0}
        return terms._replace(values={**values, **terms.values}, weights=weights)

    def estimates(
        self, model: nn.Module, posterior: Posterior, x: Tensor, likelihood: Likelihood
    ) -> tuple[Tensor, Tensor]:
        """Return -log p(x | z) and log q(z | x) / p(z) of K samples of z, (K, B) each."""
        samples = [posterior.sample() for _ in range(self.config.samples)]
        kl = torch.stack([log_ratio(model, posterior, z) for z in samples])
        together, recon = max(1, VALUES // x.numel()), []
        for start in range(0, len(samples), together):
            z = torch.cat(samples[start : start + together])  # (n * B, ...)
            rows = torch.arange(len(z), device=x.device) % len(x)
            recon.append(likelihood.nll(select_rows(model, rows), z, x[rows]))
        return torch.cat(recon).view_as(kl), kl

    def facts(self, model: nn.Module, data: DataSpec) -> dict[str, int]:
        return {"samples of z per image": self.config.samples}
