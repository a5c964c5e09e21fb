"""Reads the digits from the installed scikit-learn, and resizes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentforge.errors import MissingError, one_line

INK = 20 / 28  # height of the digit in an MNIST image, relative to the image
WHITE = 16  # source values count black pixels in 4x4 blocks


def read() -> tuple[Tensor, Tensor]:
    """Return images, float32 (1797, 1, 8, 8) in [0, 1], and labels, int64 (1797,), as stored."""
    path = source()
    try:
        table = np.loadtxt(path, dtype=np.int64, delimiter=",")  # (1797, 64 pixels and a label)
    except (OSError, EOFError, ValueError) as error:
        raise MissingError(
            f"the digits in {path} cannot be read",
            details=[one_line(error)],
            hint="pip install --force-reinstall scikit-learn",
        ) from error
    x = torch.from_numpy(table[:, :64].astype(np.float32) / WHITE)
    return x.view(-1, 1, 8, 8), torch.from_numpy(table[:, 64].copy())


def source() -> Path:
    """Return the path of digits.csv.gz without importing scikit-learn, which would take 1 s."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    problem = "is not installed" if spec is None else f"has no file digits.csv.gz ({spec.origin})"
    raise MissingError(
        f"dataset digits is part of scikit-learn, which {problem}", hint="pip install scikit-learn"
    )


def resize(x: Tensor, size: int) -> Tensor:
    """Resize images (N, 1, 8, 8) in [0, 1] to uint8 (N, 1, size, size) with centred digits.

    The source digits touch the edges. Resized to 28 pixels, they would be blurred and cut off at
    the border. Resized to 20 pixels inside a black margin, they have the proportions and stroke
    width of MNIST: the ink covers 20 x 14 pixels (20 x 15 in MNIST), and the mean brightness is
    0.16 (0.13 in MNIST). A model trained on one dataset can therefore be used on the other.
    """
    inner = max(1, round(size * INK))
    x = F.interpolate(x, (inner, inner), mode="bilinear", align_corners=False, antialias=True)
    before = (size - inner) // 2
    after = size - inner - before
    x = F.pad(x, (before, after, before, after))
    return (x * 255).round().to(torch.uint8)
