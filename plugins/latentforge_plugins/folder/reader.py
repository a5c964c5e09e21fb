"""Decodes image files into one array of upright, opaque images."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from latentforge.data.pictures import Values as Pixels
from latentforge.data.pictures import to_pixels
from latentforge.errors import UsageError, one_line
from latentforge.io.text import pluralized

from .colours16 import has_16_bits, read_16_bits
from .config import FORMATS, FolderConfig

SEVERAL = (".png", ".apng", ".gif", ".webp", ".tif", ".tiff")  # can contain several images
SAMPLE_FORMAT, UNSIGNED, SIGNED = 339, 1, 2  # a tag of TIFF and two of its values
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
MAX_NAMED = 5  # maximum number of unreadable files that an error names


class Frame(NamedTuple):
    """One image of a file."""

    path: Path
    number: int = 0

    def name(self, root: Path) -> str:
        """The path relative to `root`, with the number of the frame if it is not the first."""
        path = self.path.relative_to(root).as_posix()
        return f"{path}#{self.number}" if self.number else path


class TooLarge(ValueError):
    """The image has more pixels than allowed."""

    def __init__(self, pixels: int, limit: int) -> None:
        self.pixels = pixels
        super().__init__(f"it has {pixels:,} pixels, more than data.max_pixels ({limit:,})")


@contextmanager
def decoding() -> Iterator[None]:
    """Let Pillow decode without its warnings about unusual metadata and without its limit of the
    number of pixels, for which data.max_pixels is checked instead."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def list_frames(files: Sequence[Path], config: FolderConfig) -> list[Frame]:
    """Return the images of the files: the first of each, or all of them with data.frames=all."""
    if config.frames == "first":
        return [Frame(path) for path in files]
    frames = []
    with decoding():
        for path in files:
            count = 1
            if path.suffix.lower() in SEVERAL and path.is_file():
                try:
                    with Image.open(path, formats=FORMATS) as file:
                        count = getattr(file, "n_frames", 1)
                except Exception:  # reported when the image is decoded
                    count = 1
            frames += [Frame(path, number) for number in range(count)]
    return frames


def read(frames: Sequence[Frame], config: FolderConfig, further: dict[Frame, int]) -> Pixels:
    """Decode all images into one array, (N, 1 or 3, H, W). Raises UsageError if sizes, types or
    channels differ and the options do not convert them, or if files cannot be read; the error names
    these files."""
    x, first = np.empty((0,), np.uint8), frames[0]
    faults: list[tuple[Frame, Exception]] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # each may decode a photo of 300 MB
    with decoding():
        try:
            images = pool.map(partial(try_decode, config=config, further=further), frames)
            for i, (frame, image) in enumerate(zip(frames, images, strict=True)):
                if isinstance(image, Exception):
                    faults.append((frame, image))
                    continue
                if not x.size:
                    x, first = np.empty((len(frames), *image.shape), image.dtype), frame
                if (image.shape, image.dtype) != (x.shape[1:], x.dtype):
                    raise mixed_images_error(first, x[0], frame, image)
                x[i] = image
        finally:
            pool.shutdown(cancel_futures=True)
    if faults:
        raise unreadable_error(faults, len(frames))
    return x


def try_decode(frame: Frame, config: FolderConfig, further: dict[Frame, int]) -> Pixels | Exception:
    """Return the result of `decode` or its exception, so that an error can name all bad files."""
    try:
        return decode(frame, config, further)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises any exception type on damaged files
        return error


def decode(frame: Frame, config: FolderConfig, further: dict[Frame, int]) -> Pixels:
    """Decode an image: (1 or 3, H, W), uint8 or the values of an image with more than 8 bits.

    Bilinear resizing uses a wider filter to shrink an image, so it neither aliases nor overshoots.
    `further` gets the number of frames that are not read.
    """
    if not stat.S_ISREG(frame.path.stat().st_mode):  # reading a pipe would block
        raise ValueError("it is not a regular file")
    with Image.open(frame.path, formats=FORMATS) as file:
        if file.width * file.height > config.max_pixels:
            raise TooLarge(file.width * file.height, config.max_pixels)
        count = getattr(file, "n_frames", 1) if frame.path.suffix.lower() in SEVERAL else 1
        if config.frames == "first" and count > 1:
            further[frame] = count - 1
        if frame.number:
            file.seek(frame.number)
        if has_16_bits(file):
            pixels = read_16_bits(*frame, config.channels)
        else:
            pixels = correct_type(to_pixels(file, config.channels), file)
    return pixels if config.size is None else np.stack([resize(p, config) for p in pixels])


def correct_type(pixels: Pixels, file: Any) -> Pixels:
    """Return values with the type and the meaning that a TIFF file gives: Pillow reads int8 as
    uint8 and uint32 as int32, and does not invert grey values of more than 8 bits."""
    tags = getattr(file, "tag_v2", {})
    kind = tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    if kind == SIGNED and pixels.dtype == np.uint8:
        return pixels.view(np.int8)
    if kind == UNSIGNED and pixels.dtype == np.int32:
        pixels = pixels.view(np.uint32)
    inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO  # Pillow inverts images with 8 bits only
    if inverted and pixels.dtype in (np.uint16, np.uint32):
        return np.iinfo(pixels.dtype).max - pixels
    return pixels


def resize(channel: Pixels, config: FolderConfig) -> Pixels:
    """Resize one channel, (H, W), to data.size."""
    size = config.size
    assert size is not None
    height, width = (size, size) if isinstance(size, int) else size
    deep = channel.dtype != np.uint8
    image = Image.fromarray(channel.astype(np.float32) if deep else channel)
    method = Image.Resampling.BILINEAR
    match config.fit:
        case "stretch":
            image = image.resize((width, height), method)
        case "crop":
            image = ImageOps.fit(image, (width, height), method)
        case "pad":
            image = ImageOps.pad(image, (width, height), method)
    values = np.asarray(image)
    return values.round().astype(channel.dtype) if channel.dtype.kind in "iu" else values


def mixed_images_error(one: Frame, image: Pixels, other: Frame, other_image: Pixels) -> UsageError:
    """Return the error for two files whose images do not fit into one array."""
    (c, h, w), (c_other, h_other, w_other) = image.shape, other_image.shape
    if c != c_other:
        colour = {1: "grey", 3: "colour"}
        return UsageError(
            f"data.root: mixed channels: {one.path} is {colour[c]}, "
            f"{other.path} is {colour[c_other]}",
            hint="--set data.channels=rgb or --set data.channels=grey, to convert all images",
        )
    if image.dtype != other_image.dtype:
        return UsageError(
            f"data.root: mixed types: {one.path} is {image.dtype}, "
            f"{other.path} is {other_image.dtype}",
            hint="convert all images to the same number of bits",
        )
    return UsageError(
        f"data.root: images of several sizes (height x width): {one.path} is {h} x {w}, "
        f"{other.path} is {h_other} x {w_other}",
        hint=f"--set 'data.size=[{h},{w}]', to resize all images",
    )


def replacement(path: Path) -> str:
    """Return how to store images in a form that can be read. PNG has neither floats nor more than
    four channels."""
    if path.suffix.lower() in (".tif", ".tiff"):
        option = "--data arrays --set data.path=images.npy"
        return f"numpy.save('images.npy', x) for their values x, with {option}, or float32 TIFF"
    if path.suffix.lower() == ".png":
        return "save them again as PNG, without transparency"
    return "save them as PNG"


def unreadable_error(faults: Sequence[tuple[Frame, Exception]], count: int = 0) -> UsageError:
    """Return the error for files that cannot be read, of `count` files if that is known."""
    details = [f"{frame.path}: {one_line(error)}" for frame, error in faults[:MAX_NAMED]]
    if len(faults) > MAX_NAMED:
        details.append(f"and {len(faults) - MAX_NAMED} more")
    large = [error.pixels for _, error in faults if isinstance(error, TooLarge)]
    enough = f"--set data.max_pixels={max(large)}" if len(large) == len(faults) else ""
    return UsageError(
        f"data.root: {len(faults)}{f' of {count}' * (count > 0)} "
        f"{pluralized(count or len(faults), 'image file')} cannot be read",
        details=details,
        hint=enough
        or (replacement(faults[0][0].path) if count == len(faults) else "delete or replace them"),
    )
