"""Learnt priors of `vae`: RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) and the VampPrior
(Tomczak and Welling 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.contracts import Prior
from latentforge.latent import DiagonalGaussian, standard_normal_log_prob, to_range, widened
from latentforge_plugins.networks import mlp

from .config import VaeConfig
from .model import Vae

MAX_LOG_SCALE = 2.0  # a coupling scales a dimension by at most e^2, so that no step explodes
START = (-3.0, 1.0)
"""The mean and the standard deviation of new pseudo-inputs before `to_range`. They are mostly dark:
after 5 epochs on MNIST, the bound is 3 nats higher than with grey ones."""


class Coupling(nn.Module):
    """An affine coupling (B, D) to (B, D): the entries with mask 1 are unchanged and determine a
    scale and a shift of the others. It starts as the identity."""

    mask: Tensor

    def __init__(self, mask: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.net = mlp([len(mask), width, width, 2 * len(mask)], "relu")
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def parameters_at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The log-scale and the shift, (B, D) each, 0 where the mask is 1."""
        log_scale, shift = widened(self.net(self.mask * z)).chunk(2, dim=1)
        log_scale = MAX_LOG_SCALE * torch.tanh(log_scale / MAX_LOG_SCALE)
        return (1 - self.mask) * log_scale, (1 - self.mask) * shift

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes to base noise; also return the log-determinant of the Jacobian, (B,)."""
        log_scale, shift = self.parameters_at(z)
        return z * log_scale.exp() + shift, log_scale.sum(1)

    def inverse(self, noise: Tensor) -> Tensor:
        log_scale, shift = self.parameters_at(noise)  # the masked entries are unchanged
        return (noise - shift) * (-log_scale).exp()


class Flow(nn.Module):
    """The density of z = g(u) with u ~ N(0, I), where g is the inverse of `couplings` couplings
    with alternating masks. z is (B, D)."""

    def __init__(self, size: int, couplings: int, width: int) -> None:
        super().__init__()
        even = (torch.arange(size) % 2).float()
        masks = (even if i % 2 else 1 - even for i in range(couplings))
        self.couplings = nn.ModuleList(Coupling(mask, width) for mask in masks)
        self.size = size

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) = log N(u; 0, I) + log |du / dz|, (B,)."""
        log_det = z.new_zeros(len(z))
        for coupling in self.couplings:
            z, change = coupling(z)
            log_det = log_det + change
        return standard_normal_log_prob(z) + log_det

    def sample(self, n: int) -> Tensor:
        z = torch.randn(n, self.size, device=self.couplings[0].mask.device)
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return z


class Mixture:
    """The mean of the Gaussians `components`, whose means are (K, D)."""

    def __init__(self, components: DiagonalGaussian) -> None:
        self.mean, self.log_var = components.mean, components.log_var

    def log_prob(self, z: Tensor) -> Tensor:
        """log (1/K) sum_k N(z; mean_k, diag exp(log_var_k)), (B, D) to (B,).

        The square of z - mean is expanded: two products of matrices are faster than a tensor
        (B, K, D). In float32, its large terms would not cancel exactly.
        """
        dtype = torch.float32 if z.device.type == "mps" else torch.float64
        codes, mean, log_var = z.to(dtype), self.mean.to(dtype), self.log_var.to(dtype)
        precision = (-log_var).exp()  # (K, D)
        constant = mean.square() * precision + log_var + math.log(2 * math.pi)
        squared = codes.square() @ precision.T - 2 * codes @ (mean * precision).T  # (B, K)
        each = -0.5 * (squared + constant.sum(1))
        return (each.logsumexp(1) - math.log(len(mean))).to(z.dtype)

    def sample(self, n: int) -> Tensor:
        chosen = (torch.rand(n, device=self.mean.device) * len(self.mean)).long()
        return DiagonalGaussian(self.mean[chosen], self.log_var[chosen]).sample()


class FlowVae(Vae):
    """`vae` with a RealNVP prior."""

    def __init__(self, config: VaeConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        self.latent = LatentSpec(self.latent.shape, prior="own")
        self.flow = Flow(config.latent_dim, config.couplings, config.coupling_width)

    def prior(self) -> Prior:
        return self.flow


class VampVae(Vae):
    """`vae` whose prior is the mean of the posteriors of learnt pseudo-inputs."""

    def __init__(self, config: VaeConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        self.latent = LatentSpec(self.latent.shape, prior="own")
        mean, deviation = (0.0, 1.0) if data.range is None else START
        self.pseudo_inputs = nn.Parameter(
            mean + deviation * torch.randn(config.components, *data.shape)
        )

    def prior(self) -> Prior:
        return Mixture(self.encode(to_range(self.pseudo_inputs, self.range)))


def build_vae(config: VaeConfig, data: DataSpec) -> Vae:
    """Return the network with the learnt prior that the config selects."""
    return {"flow": FlowVae, "vamp": VampVae}[config.prior](config, data)
