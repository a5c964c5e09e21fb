"""Converts image tensors, in [0, 1] or uint8, to numpy arrays for drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


def to_uint8(images: Tensor) -> Array:
    """Convert images (..., C, H, W) in [0, 1] to uint8 of the same shape; uint8 is unchanged.
    Values are clamped to [0, 1], and NaN becomes black."""
    x = images.detach()
    if x.dtype != torch.uint8:
        x = (x.float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    array: Array = x.cpu().numpy()
    return array


def to_rgb(images: Tensor) -> Array:
    """Convert images (n, C, H, W), where C is 1 or 3, to uint8 (n, H, W, 3)."""
    x = to_uint8(images).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(np.broadcast_to(x, (*x.shape[:-1], 3)))


def to_cells(images: Tensor) -> Array:
    """Convert images (n, C, H, W) to uint8 in Pillow's axis order: (n, H, W) or (n, H, W, 3)."""
    x = to_uint8(images).transpose(0, 2, 3, 1)
    return x[..., 0] if x.shape[-1] == 1 else x


def tile(cells: Array, rows: int, columns: int) -> Array:
    """Tile cells (n, H, W) or (n, H, W, 3) row by row into one image; missing cells are black."""
    empty = np.zeros((rows * columns - len(cells), *cells.shape[1:]), np.uint8)
    height, width, *colours = cells.shape[1:]
    sheet = np.concatenate([cells, empty]).reshape(rows, columns, height, width, *colours)
    return sheet.swapaxes(1, 2).reshape(rows * height, columns * width, *colours)


def to_numpy(x: Tensor) -> Array:
    """Convert a tensor to a NumPy array; bfloat16, which NumPy lacks, becomes float32."""
    x = x.detach().cpu()
    array: Array = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return array


def can_share_unit(ranges: Array) -> bool:
    """Whether axes with the ranges `ranges` (2,) can share a unit without making the plot very
    narrow."""
    low, high = float(ranges.min()), float(ranges.max())
    return low > 0 and high <= 4 * low
