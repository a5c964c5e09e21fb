"""Writes image files, and reads them with the dataset `folder`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from latentforge_plugins.folder import FolderConfig, load
from PIL import Image

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)
PHOTO = np.linspace(40, 220, 64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)  # smooth: for JPEG
ORIENTATION = 0x0112  # EXIF tag


def save(path: Path, pixels: np.ndarray = RGB, mode: str = "", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(root: Path, **options):
    return load(FolderConfig(root, **options), "train").whole()


def pixels(root: Path, **options) -> np.ndarray:
    """Return the only image as uint8 (H, W) or (H, W, 3)."""
    (image,) = read(root, **options).x
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
