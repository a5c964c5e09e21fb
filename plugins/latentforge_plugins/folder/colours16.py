"""Reads colour images with 16 bits per channel, of which Pillow keeps only the higher 8.

With the other byte order Pillow keeps the lower 8 bits instead: an image is decoded twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from latentforge.data.pictures import DEEP, Channels
from latentforge.data.pictures import Values as Pixels

from .config import FORMATS

BITS_PER_SAMPLE = 258  # the tag of TIFF
OTHERS = ("LA", "RGBa", "CMYK")  # with transparency or ink in other channels
OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}  # big, little, native: that of libtiff, little
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as in Pillow


def has_16_bits(file: Any) -> bool:
    """Whether an open image has colours with more than 8 bits per channel. Pillow offers grey
    images with all their bits."""
    if file.mode.startswith(DEEP):
        return False
    if file.format == "PPM":
        codec, *_, arguments = file.tile[0]
        return codec.startswith("ppm") and isinstance(arguments, tuple) and arguments[1] > 255
    tags = getattr(file, "tag_v2", {})
    return max(tags.get(BITS_PER_SAMPLE, (8,))) > 8 or any(map(in_16_bits, file.tile))


def in_16_bits(tile: Any) -> bool:
    return ";16" in str(tile.args)


def read_16_bits(path: Path, number: int, channels: Channels) -> Pixels:
    """Decode frame `number` of a colour image, (1 or 3, H, W), uint16. Transparency becomes white.
    Raises ValueError for files whose bits Pillow does not offer."""
    high, low = (decode(path, number, swapped) for swapped in (False, True))
    values = high.astype(np.uint16) * 256 + low  # (H, W, 3 or 4)
    if values.shape[2] == 4:
        opaque = values[..., 3:] / 65535
        values = values[..., :3] * opaque + 65535 * (1 - opaque)
    if channels == "grey":
        values = values @ GREY[:, None]
    return np.moveaxis(values.round().astype(np.uint16), 2, 0)


def decode(path: Path, number: int, swapped: bool) -> Pixels:
    with Image.open(path, formats=FORMATS) as file:
        file.seek(number)
        if (
            not all(map(in_16_bits, file.tile))
            or file.format == "PPM"
            or any(name in str(file.tile) for name in OTHERS)
        ):
            raise ValueError(
                "Pillow reads only 8 bits of each channel of it; save it as a PNG or TIFF file "
                "with 16 bits per channel, as colours or as grey without transparency"
            )
        if swapped:
            file.tile = [tile._replace(args=swap_bytes(tile.args)) for tile in file.tile]
        return np.asarray(ImageOps.exif_transpose(file))


def swap_bytes(arguments: Any) -> Any:
    """Return the arguments of a decoder with the raw mode of the other byte order."""
    if not isinstance(arguments, str):
        return (swap_bytes(arguments[0]), *arguments[1:])
    return re.sub(";16([BLN])", lambda found: f";16{OTHER_ORDER[found[1]]}", arguments)
