"""The masks of `inpaint`: which values of an image are known, and which are hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from latentforge.contracts import DataSpec
from latentforge.errors import UsageError
from latentforge_plugins.networks import describe_examples

from .config import InpaintConfig


def known_mask(config: InpaintConfig, data: DataSpec) -> Tensor:
    """Return the values that are not hidden: bool (*data.shape) on the CPU, equal in all channels.
    Raises UsageError for a box outside the image, for other data with any mask but random, and if
    nothing is hidden or nothing is known. A random mask is drawn from the default generator."""
    if data.kind != "image" and config.mask != "random":
        raise UsageError(
            f"mask={config.mask} supports images, not {describe_examples(data)}",
            hint="--set mask=random",
        )
    height, width = data.shape[-2:] if data.kind == "image" else (1, data.shape[-1])
    hidden = torch.zeros(height, width, dtype=torch.bool)
    if config.mask == "random":
        count = round(config.share * hidden.numel())
        hidden.view(-1)[torch.randperm(hidden.numel())[:count]] = True
    else:
        hidden[_region(config, height, width)] = True
    if hidden.all() or not hidden.any():
        raise UsageError(
            f"the mask hides {'all' if hidden.all() else 'none'} of the {height}x{width} pixels",
            hint="use a mask that hides a part of the image",
        )
    return ~hidden[0] if data.kind == "vector" else (~hidden).expand(data.shape)


def _region(config: InpaintConfig, height: int, width: int) -> tuple[slice, slice]:
    """Return the hidden rows and columns. If the size is odd, the larger half is hidden."""
    everything = slice(None)
    if config.box is None:
        return {
            "lower": (slice(height // 2, None), everything),
            "upper": (slice(None, -(-height // 2)), everything),
            "left": (everything, slice(None, -(-width // 2))),
            "right": (everything, slice(width // 2, None)),
        }[config.mask]
    top, left, rows, columns = config.box
    if top + rows > height or left + columns > width:
        raise UsageError(
            f"box {list(config.box)} extends beyond the image of {height} rows and {width} "
            f"columns: it ends at row {top + rows}, column {left + columns}",
            hint="--set 'box=[top, left, height, width]' in pixels, inside the image",
        )
    return slice(top, top + rows), slice(left, left + columns)
