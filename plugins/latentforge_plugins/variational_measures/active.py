"""The measure `active_units`: Burda, Grosse and Salakhutdinov 2016, section 5.2."""

from __future__ import annotations

from collections.abc import Mapping

from latentforge.contracts import Seen
from latentforge_plugins.measures import Moments, squares

from .config import ActiveUnitsConfig


class ActiveUnits:
    """Counts the latent dimensions u with Var_x(E[u | x]) above the threshold. The variance is
    computed from deviations, because a difference of squares would lose a variance that is small
    relative to the squared mean."""

    def __init__(self, config: ActiveUnitsConfig) -> None:
        self.threshold = config.threshold
        self.protocol = (
            f"latent dimensions whose posterior mean has a variance above {config.threshold:g} "
            "over the split"
        )
        self.means = Moments(squares)

    def update(self, seen: Seen) -> None:
        self.means.update(seen.z.flatten(1))

    def compute(self) -> Mapping[str, float]:
        variance = self.means.scatter / self.means.count  # (D,)
        return {"active_units": int((variance > self.threshold).sum())}
