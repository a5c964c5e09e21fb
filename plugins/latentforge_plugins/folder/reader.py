"""Decodes image files into one array of upright, opaque images with 8 bits per channel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from latentforge.errors import UsageError, one_line

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
HeightWidth = tuple[int, int]

# Pillow runs external programs for some other formats.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MODES = {"grey": "L", "rgb": "RGB"}
GREY = ("1", "L", "LA", "La")
MAX_NAMED = 5  # maximum number of unreadable files that an error names


def read(files: Sequence[Path], size: HeightWidth | None, channels: str) -> Pixels:
    """Decode all files into one array, uint8 (N, 1 or 3, H, W). Raises UsageError if sizes or
    channels differ and the options do not convert them, or if files cannot be read; the error names
    these files."""
    x, first = np.empty((0,), np.uint8), files[0]
    faults: list[tuple[Path, Exception]] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # each may decode a photo of 300 MB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about unusual metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            images = pool.map(partial(try_decode, size=size, channels=channels), files)
            for i, (file, image) in enumerate(zip(files, images, strict=True)):
                if isinstance(image, Exception):
                    faults.append((file, image))
                    continue
                if not x.size:
                    x, first = np.empty((len(files), *image.shape), np.uint8), file
                if image.shape != x.shape[1:]:
                    raise mixed_images_error(first, x.shape[1:], file, image.shape)
                x[i] = image
        finally:
            pool.shutdown(cancel_futures=True)
    if faults:
        raise unreadable_error(faults, len(files))
    return x


def try_decode(path: Path, size: HeightWidth | None, channels: str) -> Pixels | Exception:
    """Return the result of `decode` or its exception, so that an error can name all bad files."""
    try:
        return decode(path, size, channels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises any exception type on damaged files
        return error


def decode(path: Path, size: HeightWidth | None, channels: str) -> Pixels:
    """Decode the image of a file, or its first frame if there are several: uint8 (1 or 3, H, W).

    EXIF rotation is applied. 16 bits are converted to 8. Transparency becomes white, the colour of
    paper. An image is grey if it is stored as grey, or if its palette colours are all grey.
    Bilinear resizing uses a wider filter to shrink an image, so it neither aliases nor overshoots.
    """
    with Image.open(path, formats=FORMATS) as file:
        if file.mode == "F" or (file.mode == "I" and file.format == "TIFF"):
            raise ValueError("it has 32 bits per pixel, and the range of its values is unknown")
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # mode I;16 and its variants, or I if Pillow widens them
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    palette, grey = image.mode in ("P", "PA"), image.mode in GREY
    if "transparency" in image.info or image.getbands()[-1] in "Aa":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if palette:  # GIF stores grey images with a palette too
        image = image.convert("RGB")
        rgb = np.asarray(image)
        grey = bool((rgb == rgb[..., :1]).all())
    image = image.convert(MODES[channels] if channels != "auto" else "L" if grey else "RGB")
    if size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def mixed_images_error(
    one: Path, shape: tuple[int, ...], other: Path, shape_of_other: tuple[int, ...]
) -> UsageError:
    """Return the error for two files whose images do not fit into one array."""
    (c, h, w), (c_other, h_other, w_other) = shape, shape_of_other
    if c != c_other:
        colour = {1: "grey", 3: "colour"}
        return UsageError(
            f"data.root: mixed channels: {one} is {colour[c]}, {other} is {colour[c_other]}",
            hint="--set data.channels=rgb, or data.channels=grey, to convert all images",
        )
    return UsageError(
        f"data.root: images of several sizes (height x width): {one} is {h} x {w}, "
        f"{other} is {h_other} x {w_other}",
        hint=f"--set 'data.size=[{h},{w}]', to resize all images",
    )


def unreadable_error(faults: Sequence[tuple[Path, Exception]], count: int) -> UsageError:
    details = [f"{path}: {one_line(error)}" for path, error in faults[:MAX_NAMED]]
    if len(faults) > MAX_NAMED:
        details.append(f"and {len(faults) - MAX_NAMED} more")
    return UsageError(
        f"data.root: {len(faults)} of {count} image files cannot be read",
        details=details,
        hint="delete or replace them",
    )
