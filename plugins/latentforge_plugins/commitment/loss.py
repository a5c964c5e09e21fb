"""The loss `commitment`: van den Oord, Vinyals and Kavukcuoglu 2017, eq. 3, without the term that
moves the codebook, as the model does this."""

from __future__ import annotations

from torch import nn

from latentforge.contracts import Batch, Step, Terms
from latentforge_plugins.reconstruction.loss import Reconstruction

from .config import CommitmentConfig


class Commitment(Reconstruction):
    config: CommitmentConfig

    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        posterior = model.encode(batch.x)
        terms = self.recon(model, posterior.sample(), batch.x, step)
        values = {**terms.values, "commitment": posterior.commitment().mean()}
        weights = {**terms.weights, "commitment": self.config.commitment}
        return terms._replace(values=values, weights=weights)
