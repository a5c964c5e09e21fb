"""Reads .npz and .npy files of images, and validates the headers before it reads the arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentforge.contracts import Arrays
from latentforge.data.arrays import CHANNELS, ROUNDING, scaling_hint
from latentforge.data.preparation import MAX_CLASSES
from latentforge.io.npz import Array, Member, list_keys, map_array, open_archive, read_member


def read(path: Path) -> Arrays:
    """Read `x` and, if they exist, `y` and `classes`. Raises MissingError if the file does not
    exist. Other errors are UsageErrors that name the file and the key."""
    path = path.expanduser().absolute()
    with open_archive(path, "data.path") as archive:
        present = list_keys(archive)
        x = images(read_member(archive, path, "x"))
        if "y" not in present:
            return Arrays(x)
        y = labels(read_member(archive, path, "y"), len(x))
        if "classes" not in present:
            return Arrays(x, y)
        return Arrays(x, y, names(read_member(archive, path, "classes"), int(y.max())))


def read_npy(path: Path, labels_path: Path | None) -> Arrays:
    """Memory-map the images of an .npy file, and read the labels from another .npy file."""
    path = path.expanduser().absolute()
    x = images(map_array(path, "data.path"))
    if labels_path is None:
        return Arrays(x)
    labels_path = labels_path.expanduser().absolute()
    y = labels(map_array(labels_path, "data.labels"), len(x))
    return Arrays(x, np.array(y))


def images(x: Member) -> Array:
    """Return the images as (N, H, W), (N, C, H, W) or (N, D), uint8 or floats in [0, 1]."""
    if len(x.shape) not in (2, 3, 4):
        raise x.error(f"has shape {x.shape}", "give (N, H, W), (N, H, W, C) or (N, D)")
    if 0 in x.shape:
        raise x.error(f"has no examples: its shape is {x.shape}")
    if x.dtype.kind in "iub" and x.dtype != np.uint8:
        problem = f"has dtype {x.dtype}; images must be uint8, or floats from 0 to 1"
        cast = "x.astype(numpy.uint8) for values from 0 to 255"
        raise x.error(problem, "x * numpy.uint8(255)" if x.dtype.kind == "b" else cast)
    if x.dtype.kind not in "uf":
        problem = f"has dtype {x.dtype}, which is not a real number type"
        raise x.error(problem, "give uint8, or floats from 0 to 1")
    values = x.values()
    if values.dtype != np.uint8 and not isinstance(values, np.memmap):  # checked when read
        check_range(x, values)
    return channels_first(x, values)


def check_range(x: Member, values: Array) -> None:
    low, high = float(values.min()), float(values.max())  # NaN if any value is NaN
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    if invalid := values.size - int(np.isfinite(values).sum()):
        raise x.error(f"has NaN or infinite values ({invalid} of {values.size})", "replace them")
    problem = f"has values in [{low:g}, {high:g}]; floats must be in [0, 1]"
    raise x.error(problem, scaling_hint(low, high))


def channels_first(x: Member, values: Array) -> Array:
    """Convert (N, H, W, C) to (N, C, H, W). The last axis is C if it is not longer than the second
    axis."""
    if values.ndim == 4 and values.shape[3] <= values.shape[1]:
        values = np.moveaxis(values, 3, 1)
    if values.ndim == 4 and values.shape[1] not in CHANNELS and values.shape[3] in CHANNELS:
        # the core would interpret these columns as channels
        raise x.error(f"has shape {x.shape}, and it is not clear which axis is the channel axis")
    return values


def labels(y: Member, count: int) -> Array:
    """Return the labels: one integer from 0 for each of `count` examples."""
    if y.dtype.kind not in "iu":
        fix = "numpy.unique(y, return_inverse=True)[1]" if y.dtype.kind in "US" else "y.astype(int)"
        raise y.error(f"has dtype {y.dtype}; labels must be integers", fix)
    if y.shape != (count,):
        raise y.error(f"has shape {y.shape}, but x has {count} examples", f"give shape ({count},)")
    values = y.values()
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= MAX_CLASSES:
        raise y.error(
            f"has values in [{low}, {high}]; labels must be from 0 to at most {MAX_CLASSES - 1}",
            "number the classes: numpy.unique(y, return_inverse=True)[1]",
        )
    return values


def names(classes: Member, highest: int) -> tuple[str, ...]:
    """Return the class names, which must exist for all labels from 0 to `highest`."""
    shape = classes.shape
    if classes.dtype.kind != "U" or len(shape) != 1 or shape[0] > MAX_CLASSES:
        raise classes.error(
            f"has dtype {classes.dtype} and shape {shape}; "
            "class names must be a one-dimensional array of strings",
            "numpy.array(['cat', 'dog'])",
        )
    if shape[0] <= highest:
        raise classes.error(f"has {shape[0]} names, but the largest label in y is {highest}")
    return tuple(map(str, classes.values()))
