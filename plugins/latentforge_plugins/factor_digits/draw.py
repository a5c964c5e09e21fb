"""Draws digits as strokes of a given thickness along the centre lines of handwritten digits.

A centre line is transformed as a set of points, and each pixel gets its value from its distance to
the nearest point. Rotation, scale and shift therefore do not change the thickness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from latentforge import Arrays
from latentforge.seeding import generator
from latentforge_plugins.digits import reader
from latentforge_plugins.mnist import idx

from .config import FactorDigitsConfig
from .thinning import centre_lines

HELD_OUT = 0.2  # fraction of the digits of scikit-learn that only the test images show
CHUNK = 100  # images that are drawn at once


def load_split(config: FactorDigitsConfig, split: str) -> Arrays:
    """Draw the images of a split, a function of the options alone."""
    random = generator("cpu", f"factor-digits {split}", config.seed)
    sources, classes = read_sources(config, split)
    count = config.images if split == "train" else config.test_images
    chosen = torch.randint(len(sources), (count,), generator=random)
    factors = draw_factors(config, count, random)
    used, digit = chosen.unique(return_inverse=True)
    lines = centre_lines(sources[used])
    images = torch.empty(count, 1, config.size, config.size, dtype=torch.uint8)
    for rows in torch.arange(count).split(CHUNK):
        points = [lines[i] for i in digit[rows].tolist()]
        values = {name: values[rows] for name, values in factors.items()}
        images[rows, 0] = draw(points, values, config.size)
    return Arrays(images, classes[chosen], tuple("0123456789"), factors=factors)


def read_sources(config: FactorDigitsConfig, split: str) -> tuple[Tensor, Tensor]:
    """The handwritten digits of a split, float32 (N, H, W) in [0, 1], and their classes, (N,)."""
    if config.source == "mnist":
        x, y = idx.images_and_labels(idx.raw_folder(config.root), split)
        return torch.from_numpy(x) / 255, torch.from_numpy(y).long()
    images, labels = reader.read()
    order = torch.randperm(len(labels), generator=generator("cpu", "factor-digits sources"))
    held_out = round(HELD_OUT * len(labels))
    own = order[held_out:] if split == "train" else order[:held_out]
    return images[own, 0], labels[own]


def draw_factors(
    config: FactorDigitsConfig, count: int, random: torch.Generator
) -> dict[str, Tensor]:
    """Sample `count` values of each factor uniformly between its limits, float64 (count,)."""
    limits = {
        "rotation": config.rotation,
        "scale": config.scale,
        "shift_x": config.shift,
        "shift_y": config.shift,
        "thickness": config.thickness,
    }
    return {
        name: low + (high - low) * torch.rand(count, generator=random, dtype=torch.float64)
        for name, (low, high) in limits.items()
    }


def draw(lines: list[Tensor], factors: Mapping[str, Tensor], size: int) -> Tensor:
    """Draw strokes around points, uint8 (B, size, size). `lines` are points (P, 2) as (x, y), whose
    longer side goes from -1/2 to 1/2, with y downwards. A pixel is white up to half a thickness
    from the nearest point, and fades over one pixel."""
    most = max(map(len, lines))
    points = torch.stack([F.pad(p.T, (0, most - len(p)), mode="replicate").T for p in lines])
    angle = factors["rotation"] * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)  # (B, 2, 2)
    shift = torch.stack([factors["shift_x"], factors["shift_y"]], 1) + size / 2
    points = points @ turn.mT * (factors["scale"] * size)[:, None, None] + shift[:, None]
    reach = math.ceil(float(factors["thickness"].max()) / 2 + 0.5)  # of a point's ink, in pixels
    window = torch.arange(-reach, reach + 1)
    cells = points.floor()[..., None] + window  # (B, P, 2, W): columns, then rows
    squares = (cells + 0.5 - points[..., None]).square().float()
    distances = squares[:, :, 1, :, None] + squares[:, :, 0, None]  # (B, P, W, W)
    # pixels beyond the image are those of a margin, which is cut off
    cells = cells.clamp(-1, size).long() + 1
    side = size + 2
    pixels = cells[:, :, 1, :, None] * side + cells[:, :, 0, None]
    nearest = torch.full((len(points), side * side), math.inf)
    nearest.scatter_reduce_(1, pixels.flatten(1), distances.flatten(1), "amin")
    nearest = nearest.view(-1, side, side)[:, 1:-1, 1:-1].sqrt()
    ink = (factors["thickness"].float()[:, None, None] / 2 + 0.5 - nearest).clamp(0, 1)
    return (ink * 255).round().to(torch.uint8)
