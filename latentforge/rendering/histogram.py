"""Computes the bins of histograms, for both PNG and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from latentforge.rendering.images import Array, to_numpy

FEWEST, MOST = 10, 40  # limits of the bins per panel, which are the root of the number of values


@dataclass(frozen=True)
class Bins:
    """One panel: `density` (n,) between `edges` (n + 1,). Without finite values or spread both are
    empty, and `said` is the reason."""

    edges: Array
    density: Array
    mean: float
    deviation: float
    said: str = ""

    def normal(self, x: Array) -> Array:
        """The normal density of the same mean and standard deviation."""
        scaled = (x - self.mean) / self.deviation
        density: Array = np.exp(-(scaled**2) / 2) / (self.deviation * math.sqrt(2 * math.pi))
        return density


def binned(panels: Mapping[str, Tensor]) -> tuple[dict[str, Bins], tuple[float, float]]:
    """Bin each panel separately, and compute one x range that covers all panels, so that they can
    be compared. Non-finite values are left out."""
    found = {title: _bins(to_numpy(values)) for title, values in panels.items()}
    ends = [end for bins in found.values() for end in bins.edges]
    low, high = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
    edge = 0.03 * (high - low)
    return found, (low - edge, high + edge)


def _bins(values: Array) -> Bins:
    kept = values[np.isfinite(values)].astype(float).ravel()
    none = np.zeros(0)
    if not len(kept):
        return Bins(none, none, math.nan, 0.0, "no finite values")
    mean, deviation = float(kept.mean()), float(kept.std())
    if deviation <= 1e-12 * max(1.0, abs(mean)):  # no spread, so no density
        return Bins(none, none, mean, 0.0, f"all {mean:.3g}")
    count = min(MOST, max(FEWEST, math.ceil(math.sqrt(len(kept)))))
    density, edges = np.histogram(kept, bins=count, density=True)
    return Bins(edges, density, mean, deviation)
