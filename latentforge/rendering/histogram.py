"""Computes the bins of histograms, for both PNG and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from latentforge.rendering.images import Array, to_numpy

# The number of bins is the square root of the number of values, within these limits.
MIN_BINS, MAX_BINS = 10, 40


@dataclass(frozen=True)
class Bins:
    """The bins of one panel: `density` (n,) between `edges` (n + 1,). If no value is finite or all
    are equal, both arrays are empty and `reason` says why."""

    edges: Array
    density: Array
    mean: float
    deviation: float
    reason: str = ""

    def normal(self, x: Array) -> Array:
        """The normal density with the same mean and standard deviation."""
        scaled = (x - self.mean) / self.deviation
        density: Array = np.exp(-(scaled**2) / 2) / (self.deviation * math.sqrt(2 * math.pi))
        return density


def compute_bins(panels: Mapping[str, Tensor]) -> tuple[dict[str, Bins], tuple[float, float]]:
    """Bin each panel separately, and compute one x range that covers all panels, so that they can
    be compared. Non-finite values are left out."""
    bins_by_title = {title: _compute_bins(to_numpy(values)) for title, values in panels.items()}
    edges = [edge_value for bins in bins_by_title.values() for edge_value in bins.edges]
    low, high = (float(min(edges)), float(max(edges))) if edges else (0.0, 1.0)
    margin = 0.03 * (high - low)
    return bins_by_title, (low - margin, high + margin)


def _compute_bins(values: Array) -> Bins:
    finite = values[np.isfinite(values)].astype(float).ravel()
    empty = np.zeros(0)
    if not len(finite):
        return Bins(empty, empty, math.nan, 0.0, "no finite values")
    mean, deviation = float(finite.mean()), float(finite.std())
    if deviation <= 1e-12 * max(1.0, abs(mean)):  # no spread, so no density
        return Bins(empty, empty, mean, 0.0, f"all {mean:.3g}")
    count = min(MAX_BINS, max(MIN_BINS, math.ceil(math.sqrt(len(finite)))))
    density, edges = np.histogram(finite, bins=count, density=True)
    return Bins(edges, density, mean, deviation)
