"""An exponential moving average of the weights, updated after every step."""

from __future__ import annotations

import copy

import torch

from latentforge.engine.step import Trainee


class Average:
    """A second copy of model and loss, `trainee`, that follows the first slowly.

    average <- d * average + (1 - d) * weights with d = min(decay, (1 + step) / (10 + step)), so
    that the first, random weights are soon forgotten. Floating buffers, such as batch norm's
    statistics, are averaged like parameters; counters are copied.
    """

    def __init__(self, trainee: Trainee, decay: float) -> None:
        self.decay = decay
        self.trainee = copy.deepcopy(trainee).requires_grad_(False)
        own, live = self.trainee.state_dict(), trainee.state_dict()
        floating = [name for name, value in live.items() if value.is_floating_point()]
        self._own, self._live = [own[n] for n in floating], [live[n] for n in floating]
        self._copied = [(own[n], live[n]) for n in live if n not in floating]

    @torch.no_grad()
    def update(self, index: int) -> None:
        """After step `index`, counted from 0."""
        decay = min(self.decay, (1 + index) / (10 + index))
        torch._foreach_lerp_(self._own, self._live, 1.0 - decay)
        for own, live in self._copied:
            own.copy_(live)
