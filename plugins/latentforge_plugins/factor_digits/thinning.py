"""The centre lines of handwritten digits: thinning after Zhang and Suen 1984, for a batch at once.

T. Y. Zhang and C. Y. Suen, A Fast Parallel Algorithm for Thinning Digital Patterns, CACM 27(3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 40  # pixels of an enlarged digit, so that its line has about 60 points
INK = 0.4  # values of the enlarged digit that belong to a stroke, relative to its maximum
CHUNK = 500
# Around a pixel, clockwise from the one above it, as (row, column)
AROUND = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))


def centre_lines(x: Tensor) -> list[Tensor]:
    """Return the points of each digit's centre line, float64 (P, 2) as (x, y), centred, with the
    longer side from -1/2 to 1/2. `x`: float32 (N, H, W) in [0, 1]."""
    lines = []
    for part in x.split(CHUNK):
        enlarged = F.interpolate(part[:, None], (SIDE, SIDE), mode="bicubic")[:, 0]
        strokes = enlarged > INK * enlarged.amax((1, 2), keepdim=True)
        lines += [normalise(line.nonzero().flip(1).double()) for line in thin(strokes)]
    return lines


def normalise(points: Tensor) -> Tensor:
    low, high = points.amin(0), points.amax(0)
    return (points - (low + high) / 2) / (high - low).max().clamp(min=1)


def thin(strokes: Tensor) -> Tensor:
    """Remove pixels from the border of strokes, bool (N, H, W), until lines are left that are one
    pixel wide and connected as before."""
    strokes, left = strokes.clone(), torch.arange(len(strokes))
    while len(left):
        before = now = strokes[left]
        for removable in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            now = now & ~border(now, removable)
        strokes[left] = now
        left = left[(now != before).flatten(1).any(1)]
    return strokes


def border(strokes: Tensor, removable: tuple[tuple[int, ...], ...]) -> Tensor:
    """The pixels that one of the two half-steps removes: they have 2 to 6 neighbours in one
    connected group, and in each of the `removable` triples of neighbours one is empty."""
    height, width = strokes.shape[1:]
    padded = F.pad(strokes, (1, 1, 1, 1))
    around = [padded[:, r : r + height, c : c + width] for r, c in AROUND]
    count = sum(pixel.to(torch.uint8) for pixel in around)
    starts = sum(
        (~around[i] & around[(i + 1) % 8]).to(torch.uint8) for i in range(8)
    )  # groups of neighbours
    found = (count >= 2) & (count <= 6) & (starts == 1)
    for one, two, three in removable:
        found = found & ~(around[one] & around[two] & around[three])
    return found
