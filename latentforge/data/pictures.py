"""Converts pictures of Pillow to arrays of values."""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

Values = np.ndarray[Any, Any]
Channels = Literal["auto", "grey", "rgb"]

MODES = {"grey": "L", "rgb": "RGB"}
GREY = ("1", "L", "LA", "La")
DEEP = ("I", "F")  # modes with more than 8 bits: I;16 and its variants, I, F


def is_picture(value: Any) -> bool:
    """Whether a value is an image of Pillow, which is not imported for this question."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_image(value: Any) -> bool:
    """Whether a value is an image of Pillow, an array or a tensor, and not a single number."""
    return is_picture(value) or (hasattr(value, "shape") and len(value.shape) > 0)


def to_pixels(image: Any, channels: Channels) -> Values:
    """Convert an image of Pillow to values (1 or 3, H, W).

    uint8, or for images with more bits uint16, int32 or float32 with their values unchanged; these
    are grey. Transparency becomes white, the colour of paper. An image is grey if it is stored as
    grey, or if its palette colours are all grey. EXIF rotation is applied.
    """
    from PIL import Image, ImageOps

    form = image.format  # a rotated copy has none
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(DEEP):
        values = np.asarray(image)
        if values.dtype == np.int32 and form in ("PNG", "PPM"):
            values = values.astype(np.uint16)  # Pillow widens the 16 bits of PNG and PGM files
        values = values.astype(values.dtype.newbyteorder("="))
        return np.repeat(values[None], 3 if channels == "rgb" else 1, 0)
    palette, grey = image.mode in ("P", "PA"), image.mode in GREY
    if image.mode == "La":  # premultiplied; Pillow converts it to this mode only
        image = image.convert("LA")
    if "transparency" in image.info or image.getbands()[-1] in "Aa":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if palette:  # GIF stores grey images with a palette too
        image = image.convert("RGB")
        rgb = np.asarray(image)
        grey = bool((rgb == rgb[..., :1]).all())
    image = image.convert(MODES[channels] if channels != "auto" else "L" if grey else "RGB")
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
