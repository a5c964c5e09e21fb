"""The loss `iwae`: -L_K. L_K = E log (1/K) sum_k p(x | z_k) p(z_k) / q(z_k | x) <= log p(x)."""

from __future__ import annotations

import math

import torch
from torch import nn

from latentforge import DataSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import log_ratio
from latentforge_plugins.reconstruction.loss import Reconstruction

from .config import IwaeConfig


class Iwae(Reconstruction):
    """The importance-weighted bound (Burda, Grosse and Salakhutdinov 2016), estimated with K
    samples of z. `recon` and `kl` are the means over the samples: -ELBO = recon + kl. They are
    logged, but only `iwae` is trained on."""

    config: IwaeConfig

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        likelihood, posterior = self.likelihood, model.encode(batch.x)
        if step.first:
            likelihood.check(batch.x)
        recon, kl = [], []  # K tensors (B,) each
        for _ in range(self.config.samples):  # one at a time, so that a decoder gets B rows
            z = posterior.sample()
            recon.append(likelihood.nll(model, z, batch.x))
            kl.append(log_ratio(model, posterior, z))
        log_weights = -(torch.stack(recon) + torch.stack(kl))  # (K, B)
        bound = log_weights.logsumexp(0) - math.log(self.config.samples)  # (B,)
        terms = self.with_parameters(torch.stack(recon).detach().mean(), likelihood)
        values = {"iwae": -bound.mean(), "kl": torch.stack(kl).detach().mean()}
        weights = {**terms.weights, "recon": 0.0, "kl": 0.0}
        return terms._replace(values={**values, **terms.values}, weights=weights)

    def facts(self, model: nn.Module, data: DataSpec) -> dict[str, int]:
        return {"samples of z per image": self.config.samples}
