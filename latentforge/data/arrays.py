"""Converts arrays to images: axis order, dtype, uint8 or floats in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentforge.errors import UsageError

CHANNELS = (1, 3, 4)  # the last of four axes contains channels if it has one of these sizes
ROUNDING = 1e-6  # floats this far outside [0, 1] are clamped: resizing gives 1.0000001


def as_tensor(values: Any, where: str) -> Tensor:
    """Convert `values` to a tensor on the CPU that shares their memory if possible."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind == "f" and array.dtype != np.float32:
        array = array.astype(np.float32)
    elif array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    elif array.dtype.kind not in "fiub":
        raise UsageError(f"{where}: values of type {array.dtype} are not numbers")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_channels_first(x: Tensor, where: str) -> Tensor:
    """Convert (N, H, W), (N, C, H, W) or (N, H, W, C) to (N, C, H, W). (N, D) is unchanged."""
    if x.ndim not in (2, 3, 4):
        raise UsageError(
            f"{where}: x has shape {tuple(x.shape)}", hint="give (N, H, W), (N, C, H, W) or (N, D)"
        )
    if not x.numel():
        raise UsageError(f"{where}: there are no examples, x has shape {tuple(x.shape)}")
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.ndim == 4 and x.shape[1] not in CHANNELS and x.shape[3] in CHANNELS:
        x = x.permute(0, 3, 1, 2)
    return x.contiguous()


def check_pixels(x: Tensor, where: str) -> Tensor:
    """Return uint8 unchanged, and floats as float32 after a check that they are in [0, 1]. Raises
    UsageError for other values."""
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise UsageError(
            f"{where}: x is {dtype_name(x)}", hint="give uint8 from 0 to 255, or floats from 0 to 1"
        )
    x = x.to(torch.float32)
    low, high = (float(value) for value in x.aminmax())  # nan if x contains one
    if low >= 0.0 and high <= 1.0:
        return x
    if count := x.numel() - int(x.isfinite().sum()):
        raise UsageError(
            f"{where}: {count} of {x.numel()} values of x are NaN or infinite",
            hint="remove or replace them in the dataset's load",
        )
    if low < -ROUNDING or high > 1.0 + ROUNDING:
        raise UsageError(
            f"{where}: x is in [{low:g}, {high:g}], but floats must be in [0, 1]",
            hint=scaling_hint(low, high),
        )
    return x.clamp(0.0, 1.0)


def scaling_hint(low: float, high: float) -> str:
    """Return a hint that says how to convert floats in [low, high] to [0, 1]."""
    if low >= 0.0 and 2.0 <= high <= 255.0:
        return "divide by 255, or give uint8"
    if low >= -1.0 - ROUNDING and high <= 1.0 + ROUNDING:
        return "give (x + 1) / 2"
    return f"give (x - {low:g}) / {high - low:g}"


def dtype_name(x: Any) -> str:
    """The dtype of a tensor in numpy's spelling: uint8, float32."""
    return str(x.dtype).removeprefix("torch.")
