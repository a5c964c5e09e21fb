"""Real images and codes: digits and the principal components of their pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentforge import Forge


@dataclass(frozen=True)
class Digits:
    """`x` (N, 1, 28, 28) in [0, 1], `y` (N,), and `z` (N, 8), principal components of x."""

    x: Tensor
    y: Tensor
    z: Tensor
    classes: tuple[str, ...]


@pytest.fixture(scope="session")
def digits() -> Digits:
    images = Forge().load_data("digits").split("train")
    batch = images.batch_at(list(range(len(images))))
    flat = batch.x.flatten(1) - batch.x.flatten(1).mean(0)
    z = flat @ torch.linalg.svd(flat, full_matrices=False).Vh[:8].T
    return Digits(batch.x, batch.y, z, tuple(images.spec.classes))


class Look:
    """Helpers that inspect the pixels of an image."""

    @staticmethod
    def opened(file: Path | bytes) -> np.ndarray:
        """Returns the pixels, (H, W, 3)."""
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            return np.asarray(picture.convert("RGB"))

    @staticmethod
    def count(picture: np.ndarray, colour: str, off: int = 12) -> int:
        """Counts the pixels of a colour, within `off` levels."""
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        return int((np.abs(picture.astype(int) - wanted).max(-1) <= off).sum())

    @staticmethod
    def margins(picture: np.ndarray) -> tuple[int, int, int, int]:
        """Returns the widths of the white margins: left, top, right, bottom."""
        drawn = (picture < 250).any(-1)
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        height, width = drawn.shape
        return columns[0], rows[0], width - 1 - columns[-1], height - 1 - rows[-1]


@pytest.fixture(scope="session")
def look() -> Look:
    return Look()
