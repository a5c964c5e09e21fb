"""The loss `beta-tc`: the KL in three parts, estimated by minibatch-weighted sampling.

Source: Chen, Li, Grosse and Duvenaud 2018."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentforge import DataSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import DiagonalGaussian, standard_normal_log_prob
from latentforge_plugins.reconstruction.loss import Reconstruction

from .config import BetaTcConfig

ROWS = 256  # codes per chunk, because a whole evaluation batch would need gigabytes


class BetaTc(Reconstruction):
    """recon + alpha mi + beta tc + gamma dim_kl. The exact KL is also logged, as `kl`."""

    config: BetaTcConfig

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        config, posterior = self.config, model.encode(batch.x)
        z = posterior.sample()
        recon = self.recon(model, z, batch.x, step)
        kl = posterior.kl().mean(0)  # (*latent.shape)
        values = {**recon.values, **decomposition(posterior, z, step.images), "kl": kl.sum()}
        weights = {"mi": config.alpha, "tc": config.beta, "dim_kl": config.gamma, "kl": 0.0}
        per_dim = {**recon.per_dim, "kl": kl.detach()}
        return Terms(values, {**recon.weights, **weights}, per_dim)

    def facts(self, model: nn.Module, data: DataSpec) -> dict[str, float]:
        """Return `beta` and its equivalent for a mean over pixels, for which alpha and gamma must
        be scaled by the same factor."""
        beta = self.config.beta
        return {"beta (sum over pixels)": beta, "beta (mean over pixels)": beta / data.size}


def decomposition(posterior: DiagonalGaussian, z: Tensor, images: int) -> dict[str, Tensor]:
    """Estimate the three parts of E log q(z|x) - log p(z) as means over the batch, in nats.

    mi = E log q(z|x) - log q(z), tc = E log q(z) - log prod_d q(z_d),
    dim_kl = E log prod_d q(z_d) - log p(z), where q(z) is the mean of q(z|x) over all `images`.
    With a batch of B images, q(z) is estimated as sum_j q(z|x_j) / (B images), and q(z_d) in the
    same way (appendix C). The estimate is too small by a factor between B and `images`, so mi and
    tc are too large and dim_kl is too small, but their sum is correct. Compare the parts only
    between runs with the same batch size.
    """
    z = z.flatten(1)  # (B, D)
    log_q, log_q_each = aggregate(posterior, z, images)
    log_q_given_x = posterior.log_prob(z.view_as(posterior.mean))
    log_p = standard_normal_log_prob(z)
    return {
        "mi": (log_q_given_x - log_q).mean(),
        "tc": (log_q - log_q_each).mean(),
        "dim_kl": (log_q_each - log_p).mean(),
    }


def aggregate(posterior: DiagonalGaussian, z: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Estimate log q(z) and sum_d log q(z_d), (N,) each, of codes (N, D) by minibatch-weighted
    sampling."""
    mean, log_var = posterior.mean.flatten(1), posterior.log_var.flatten(1)  # (B, D)
    precision, constant = (-log_var).exp(), log_var + math.log(2 * math.pi)
    log_weight = math.log(len(mean) * images)
    joint, each = [], []
    for rows in z.split(ROWS):
        squared = (rows[:, None] - mean).square() * precision  # (n, B, D)
        log_density = -0.5 * (squared + constant)
        joint.append(log_density.sum(2).logsumexp(1) - log_weight)
        each.append((log_density.logsumexp(1) - log_weight).sum(1))
    return torch.cat(joint), torch.cat(each)
