"""-log p(x | z) of the code's sample, in nats per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import Bernoulli, Gaussian, Likelihood

if TYPE_CHECKING:
    from . import ReconstructionConfig


class Reconstruction(nn.Module):
    likelihood: Likelihood

    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__()
        gaussian = config.likelihood == "gaussian"
        self.likelihood = Gaussian(config.sigma) if gaussian else Bernoulli()

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        z = model.encode(batch.x).sample()
        return Terms({"recon": self.likelihood.mean_nll(model, z, batch.x)})
