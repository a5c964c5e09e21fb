"""The losses `elbo` and `beta-elbo`: schedules of beta, and beta in other conventions.

-ELBO = -log p(x | z) + beta KL(q(z | x) || p(z)), in nats per image, summed over pixels and latent
dimensions."""

from __future__ import annotations

import math

from torch import nn

from latentforge import DataSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import kl_values
from latentforge_plugins.reconstruction.loss import Reconstruction

from .config import BetaElboConfig


class Elbo(Reconstruction):
    """The negative ELBO (Kingma and Welling 2014), estimated with one sample of z. `per_dim`
    contains the KL of each dimension. If the KL has no closed form, it is estimated with the same
    sample, and `per_dim` is empty."""

    beta = 1.0

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        posterior = model.encode(batch.x)
        z = posterior.sample()
        recon = self.recon(model, z, batch.x, step)
        each = kl_values(model, posterior, z)  # (B, *latent.shape), or (B,) if estimated
        kl = each.mean(0)  # (*latent.shape), or ()
        if not kl.ndim:
            return recon._replace(values={**recon.values, "kl": kl})
        values, per_dim = {**recon.values, "kl": kl.sum()}, {**recon.per_dim, "kl": kl.detach()}
        return recon._replace(values=values, per_dim=per_dim)

    def facts(self, model: nn.Module, data: DataSpec) -> dict[str, float]:
        """Return the equivalent of `beta` in other conventions, which average over pixels or
        latents. With a schedule, `beta` is its full value.

        Each value gives the same gradient up to a factor. The value for means over both is the
        beta_norm of Higgins et al. 2017. The values for a plain squared error include the sigma of
        the Gaussian likelihood.
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
    """The loss of Higgins et al. 2017, with the cyclic schedule of Fu et al. 2019 and the capacity
    of Burgess et al. 2018."""

    config: BetaElboConfig

    def __init__(self, config: BetaElboConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        self.beta = config.beta

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        terms = super().forward(model, batch, step)
        beta = self.beta
        if self.config.schedule != "constant":  # a CUDA graph can replay a constant beta
            beta *= share(self.config, step.epoch)
        if not self.config.capacity:
            return terms._replace(weights={**terms.weights, "kl": beta})
        gap = (terms.values["kl"] - capacity(self.config, step.epoch)).abs()
        return terms._replace(
            values={**terms.values, "kl_gap": gap},
            weights={**terms.weights, "kl": 0.0, "kl_gap": beta},
        )


def share(config: BetaElboConfig, epoch: float) -> float:
    """Return the fraction of beta, from 0 to 1, that is used after `epoch` epochs."""
    if config.schedule == "constant" or epoch >= config.end_epoch:
        return 1.0
    if epoch <= config.start_epoch:
        return 0.0
    progress = (epoch - config.start_epoch) / (config.end_epoch - config.start_epoch)
    if config.schedule == "linear":
        return progress
    return min(1.0, (progress * config.cycles % 1.0) / config.ramp)


def capacity(config: BetaElboConfig, epoch: float) -> float:
    """Return the capacity C in nats after `epoch` epochs."""
    if epoch >= config.capacity_epochs:
        return config.capacity
    return config.capacity * epoch / config.capacity_epochs
