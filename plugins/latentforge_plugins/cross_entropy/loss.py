"""The loss `cross-entropy`: -log p(y | x) from logits, in nats per image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from latentforge.contracts import Batch, Step, Terms
from latentforge.latent import widened


class CrossEntropy(nn.Module):
    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        return Terms({"cross_entropy": F.cross_entropy(widened(model(batch.x)), batch.y)})
