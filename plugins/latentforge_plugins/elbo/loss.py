"""The losses `elbo` and `beta-elbo`: schedules of beta, and beta in other conventions.

-ELBO = -log p(x | z) + beta KL(q(z | x) || p(z)), in nats per image, summed over pixels and latent
dimensions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from latentforge import DataSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge_plugins.reconstruction.loss import Reconstruction

if TYPE_CHECKING:
    from .config import BetaElboConfig


class Elbo(Reconstruction):
    """Kingma and Welling 2014, with one sample of z; `per_dim` has the KL of each dimension."""

    beta = 1.0

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        posterior = model.encode(batch.x)
        recon = self.recon(model, posterior.sample(), batch.x, step)
        kl = posterior.kl().mean(0)  # (*latent.shape)
        return recon._replace(values={**recon.values, "kl": kl.sum()}, per_dim={"kl": kl.detach()})

    def facts(self, model: nn.Module, data: DataSpec) -> dict[str, float]:
        """The equivalent of `beta` (its full value, with a schedule) in other conventions, which
        average pixels or latents.

        Each gives the same gradient up to a factor. Means over both are the beta_norm of Higgins
        et al. 2017. For the plain squared error, beta includes the sigma of a Gaussian likelihood.
        """
        pixels, latents = data.size, math.prod(model.latent.shape)
        facts = {
            "beta (sums over pixels and latents)": self.beta,
            "beta (mean over pixels, sum over latents)": self.beta / pixels,
            "beta (means over pixels and latents)": self.beta * latents / pixels,
            "beta (sum over pixels, mean over latents)": self.beta * latents,
        }
        if self.config.likelihood == "gaussian" and not self.config.learn_sigma:
            per_error = 2 * self.config.sigma**2 * self.beta
            facts["beta (mean squared error, sum over latents)"] = per_error / pixels
            facts["beta (sum of squared errors, sum over latents)"] = per_error
        return facts


class BetaElbo(Elbo):
    """Higgins et al. 2017; cyclic as Fu et al. 2019; capacity as Burgess et al. 2018."""

    config: BetaElboConfig

    def __init__(self, config: BetaElboConfig) -> None:
        super().__init__(config)
        self.beta = config.beta

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        terms = super().forward(model, batch, step)
        beta = self.beta
        if self.config.schedule != "constant":  # else a CUDA graph can replay the step
            beta *= share(self.config, step.epoch)
        if not self.config.capacity:
            return terms._replace(weights={**terms.weights, "kl": beta})
        gap = (terms.values["kl"] - capacity(self.config, step.epoch)).abs()
        return terms._replace(
            values={**terms.values, "kl_gap": gap},
            weights={**terms.weights, "kl": 0.0, "kl_gap": beta},
        )


def share(config: BetaElboConfig, epoch: float) -> float:
    """The share of beta, from 0 to 1, after `epoch` epochs."""
    if config.schedule == "constant" or epoch >= config.end_epoch:
        return 1.0
    if epoch <= config.start_epoch:
        return 0.0
    progress = (epoch - config.start_epoch) / (config.end_epoch - config.start_epoch)
    if config.schedule == "linear":
        return progress
    return min(1.0, (progress * config.cycles % 1.0) / config.ramp)


def capacity(config: BetaElboConfig, epoch: float) -> float:
    """The capacity C in nats after `epoch` epochs."""
    if epoch >= config.capacity_epochs:
        return config.capacity
    return config.capacity * epoch / config.capacity_epochs
