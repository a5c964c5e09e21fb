"""How many latent dimensions a model uses: Burda, Grosse and Salakhutdinov 2016, section 5.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from latentforge.contracts import Seen

if TYPE_CHECKING:
    from . import ActiveUnitsConfig


class ActiveUnits:
    """Counts the dimensions u with Var_x(E[u | x]) above the threshold.

    In float64 and from deviations, batch by batch (Chan, Golub and LeVeque 1983): a difference of
    squares would drown a small variance beside a large mean.
    """

    def __init__(self, config: ActiveUnitsConfig) -> None:
        self.threshold = config.threshold
        self.protocol = (
            f"latent dimensions whose posterior mean has a variance above {config.threshold:g} "
            "over the split"
        )
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def update(self, seen: Seen) -> None:
        means = seen.z.flatten(1).cpu().double()  # (B, D)
        total = self.count + len(means)
        away = means.mean(0) - self.mean
        inside = (means - means.mean(0)).square().sum(0)
        self.squares = self.squares + inside + away.square() * (self.count * len(means) / total)
        self.mean = self.mean + away * (len(means) / total)
        self.count = total

    def compute(self) -> Mapping[str, float]:
        return {"active_units": int((self.squares / self.count > self.threshold).sum())}
