"""-log p(y | x) from logits, in nats per image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from latentforge.contracts import Batch, Step, Terms


class CrossEntropy(nn.Module):
    def forward(self, model: nn.Module, batch: Batch, step: Step) -> Terms:
        return Terms({"cross_entropy": F.cross_entropy(model(batch.x), batch.y)})
