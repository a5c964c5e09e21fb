"""The loss `reconstruction`: -log p(x | z) of a sampled code, in nats per image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import Bernoulli, Gaussian, Likelihood

from .config import ReconstructionConfig


class Reconstruction(nn.Module):
    """-log p(x | z) for a sample z of q(z | x). `learn_sigma` adds the parameter `log_sigma`."""

    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__()
        self.config = config
        if config.learn_sigma:
            self.log_sigma = nn.Parameter(torch.tensor(math.log(config.sigma)))

    @property
    def likelihood(self) -> Likelihood:
        """The current likelihood. If sigma is learnt, it changes during training."""
        if self.config.likelihood == "bernoulli":
            return Bernoulli()
        return Gaussian(self.log_sigma.exp() if self.config.learn_sigma else self.config.sigma)

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        return self.recon(model, model.encode(batch.x).sample(), batch.x, step)

    def recon(self, model: nn.Module, z: Tensor, x: Tensor, step: Step) -> Terms:
        """Return the terms of all losses with this likelihood: `recon` and, if learnt, `sigma`."""
        likelihood = self.likelihood
        if step.first:
            likelihood.check(x)
        recon = likelihood.mean_nll(model, z, x)
        if not self.config.learn_sigma:
            return Terms({"recon": recon})
        return Terms({"recon": recon, "sigma": likelihood.sigma}, {"sigma": 0.0})
