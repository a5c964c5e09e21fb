"""Reads the digits out of scikit-learn's wheel, and draws them at another size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentforge.errors import MissingError, one_line

INK = 20 / 28  # the share of an MNIST image's height that its digit takes
WHITE = 16  # the source counts black pixels in 4x4 blocks


def read() -> tuple[Tensor, Tensor]:
    """float32 (1797, 1, 8, 8) in [0, 1] and int64 (1797,), in the order of the file."""
    path = source()
    try:
        table = np.loadtxt(path, dtype=np.int64, delimiter=",")  # (1797, 64 pixels and a label)
    except (OSError, EOFError, ValueError) as error:
        raise MissingError(
            f"the digits in {path} cannot be read",
            details=[one_line(error)],
            remedy="pip install --force-reinstall scikit-learn",
        ) from error
    x = torch.from_numpy(table[:, :64].astype(np.float32) / WHITE)
    return x.view(-1, 1, 8, 8), torch.from_numpy(table[:, 64].copy())


def source() -> Path:
    """The file inside scikit-learn's folder, found without importing it (that would take 1 s)."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    where = "is not installed" if spec is None else f"in {spec.origin} has no digits.csv.gz"
    raise MissingError(
        f"dataset digits lies in scikit-learn, which {where}", remedy="pip install scikit-learn"
    )


def resized(x: Tensor, size: int) -> Tensor:
    """(N, 1, 8, 8) in [0, 1] to uint8 (N, 1, size, size), the digit in the middle.

    The source's digits touch the edges. Stretched over all 28 pixels they are broad blurs cut off
    by the frame; 20 pixels high inside a black margin they have MNIST's proportions and stroke
    width (ink 20 x 14 pixels there, 20 x 15 in MNIST; mean brightness 0.16, and 0.13), so that a
    model trained on one sees familiar shapes in the other.
    """
    inner = max(1, round(size * INK))
    x = F.interpolate(x, (inner, inner), mode="bilinear", align_corners=False, antialias=True)
    before = (size - inner) // 2
    after = size - inner - before
    x = F.pad(x, (before, after, before, after))
    return (x * 255).round().to(torch.uint8)
