"""Arrays with numeric and categorical factors, for tests."""

from __future__ import annotations

import numpy as np

from latentforge import Arrays

N = 60
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (N, 6, 5), dtype=np.uint8)
Y = np.arange(N) % 3
ANGLE = np.linspace(-90, 90, N)
SHAPE = np.arange(N) % 2
COLOUR = np.array(["red", "green", "blue"])[np.arange(N) % 3]
FACTORS = {"angle": ANGLE, "shape": (SHAPE, ["square", "disc"]), "colour": COLOUR}


def arrays(factors=FACTORS, y=Y):
    return Arrays(X, y, ("a", "b", "c") if y is not None else (), factors=factors)
