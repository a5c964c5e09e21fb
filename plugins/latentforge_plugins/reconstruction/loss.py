"""The loss `reconstruction`: -log p(x | z) of a sampled code, in nats per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentforge import DataSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import Bernoulli, Gaussian, Likelihood
from latentforge.likelihoods import Laplace, NegativeBinomial, Poisson

from .config import ReconstructionConfig


class Reconstruction(nn.Module):
    """-log p(x | z) for a sample z of q(z | x). `learn_sigma` adds the parameter `log_sigma`, and a
    negative binomial likelihood `log_dispersion`."""

    def __init__(self, config: ReconstructionConfig, data: DataSpec) -> None:
        super().__init__()
        self.config = config
        if config.learn_sigma:
            self.log_sigma = nn.Parameter(torch.tensor(math.log(config.sigma)))
        if config.likelihood == "negative-binomial":
            shape = data.shape if config.dispersion_of == "value" else ()
            values = torch.full(shape, math.log(config.dispersion))
            self.log_dispersion = nn.Parameter(values, requires_grad=config.learn_dispersion)

    @property
    def likelihood(self) -> Likelihood:
        """The current likelihood. If it has learnt parameters, it changes during training."""
        match self.config.likelihood:
            case "bernoulli":
                return Bernoulli()
            case "poisson":
                return Poisson()
            case "negative-binomial":
                return NegativeBinomial(self.log_dispersion.exp())
        sigma = self.log_sigma.exp() if self.config.learn_sigma else self.config.sigma
        return Gaussian(sigma) if self.config.likelihood == "gaussian" else Laplace(sigma)

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        return self.recon(model, model.encode(batch.x).sample(), batch.x, step)

    def recon(self, model: nn.Module, z: Tensor, x: Tensor, step: Step) -> Terms:
        """Return the terms of all losses with this likelihood: `recon` and, if learnt, `sigma` or
        the geometric mean of the `dispersion`, which is in `per_dim` if each value has its own."""
        likelihood = self.likelihood
        if step.first:
            likelihood.check(x)
        return self.with_parameters(likelihood.mean_nll(model, z, x), likelihood)

    def with_parameters(self, recon: Tensor, likelihood: Likelihood) -> Terms:
        """Return the terms `recon` and the learnt parameters of the likelihood."""
        config = self.config
        if config.likelihood == "negative-binomial":
            mean = self.log_dispersion.mean().exp()
            each = likelihood.dispersion.detach().flatten()
            per_dim = {"dispersion": each} if config.dispersion_of == "value" else {}
            return Terms({"recon": recon, "dispersion": mean}, {"dispersion": 0.0}, per_dim)
        if not config.learn_sigma:
            return Terms({"recon": recon})
        sigma = likelihood.sigma if config.likelihood == "gaussian" else likelihood.scale
        return Terms({"recon": recon, "sigma": sigma}, {"sigma": 0.0})
