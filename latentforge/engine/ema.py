"""An exponential moving average of the weights, updated after every step."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class ExponentialMovingAverage(Generic[M]):
    """The moving average of a model and a loss. `trainee` is a copy that contains the averages.

    average <- d * average + (1 - d) * weights with d = min(decay, (1 + step) / (10 + step)), so
    that the initial random weights soon lose their influence. Floating-point buffers, such as
    batch norm's statistics, are averaged like parameters; counters are copied.
    """

    def __init__(self, trainee: M, decay: float) -> None:
        self.decay = decay
        self.trainee = copy.deepcopy(trainee).requires_grad_(False)
        # parameters() and buffers() yield a shared tensor once
        pairs = [
            *zip(self.trainee.parameters(), trainee.parameters(), strict=True),
            *zip(self.trainee.buffers(), trainee.buffers(), strict=True),
        ]
        floating = [pair for pair in pairs if pair[1].is_floating_point()]
        self._averages = [average for average, _ in floating]
        self._weights = [weight for _, weight in floating]
        self._copied = [pair for pair in pairs if not pair[1].is_floating_point()]

    @torch.no_grad()
    def update(self, index: int) -> None:
        """Update the average after step `index`, counted from 0."""
        decay = min(self.decay, (1 + index) / (10 + index))
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - decay)
        for average, weight in self._copied:
            average.copy_(weight)
