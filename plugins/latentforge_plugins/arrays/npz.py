"""Reads an .npz file member by member, and checks each before and after reading it.

Not by numpy's own loader, which allocates what a header claims and can unpickle: here a header must
agree with the size of the file before anything is allocated, and objects are refused.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

from latentforge.contracts import Arrays
from latentforge.errors import MissingError, UsageError, one_line
from latentforge.preparation import CHANNELS, ROUNDING

Values = np.ndarray[Any, Any]

SAVE = "write it with numpy.savez(path, x=images, y=labels)"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
EXPANSION = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}  # the most bytes that one stored byte can become
CLASSES = 65_536  # the core makes a name for each number up to the highest label
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError, OverflowError),
    *(BadZipFile, zlib.error, struct.error, TokenError),
)


def read(path: Path) -> Arrays:
    """`x`, and `y` and `classes` if they are there.

    Raises MissingError where there is no file, and UsageError that names it and the key.
    """
    path = path.expanduser().absolute()
    with opened(path) as archive:
        keys = sorted(n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy"))
        if "x" not in keys:
            there = ", ".join(map(repr, keys[:10])) or "none"
            raise UsageError(f"{path} has no key x; the keys there are: {there}", remedy=SAVE)
        x = images(member(archive, path, "x"))
        if "y" not in keys:
            return Arrays(x)
        y = labels(member(archive, path, "y"), len(x))
        if "classes" not in keys:
            return Arrays(x, y)
        return Arrays(x, y, names(member(archive, path, "classes"), int(y.max())))


def opened(path: Path) -> ZipFile:
    """The file as a zip archive, which an .npz is."""
    if not path.exists():
        raise MissingError(f"data.path: there is no file {path}", remedy="--set data.path=FILE.npz")
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(6)
        return ZipFile(path)
    except DAMAGE as error:
        what, remedy = "no .npz file", SAVE
        if start == b"\x93NUMPY":
            what = "a single array (.npy), and no .npz file"
        elif start.startswith(b"PK"):
            what, remedy = "truncated or damaged", "make or copy it anew"
        raise UsageError(
            f"data.path: {path} is {what}", details=[one_line(error)], remedy=remedy
        ) from error


@dataclass(frozen=True)
class Member:
    """One array of the file, of which so far only the header was read."""

    archive: ZipFile
    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def wrong(self, what: str, remedy: str = "") -> UsageError:
        return UsageError(f"{self.path}: {self.key} {what}", remedy=remedy)

    def values(self) -> Values:
        """The array itself; UsageError where the bytes are damaged."""
        try:
            with self.archive.open(f"{self.key}.npy") as file:
                values: Values = npy.read_array(file, allow_pickle=False)
            return values
        except DAMAGE as error:
            raise damaged(self.path, self.key, one_line(error)) from error


def member(archive: ZipFile, path: Path, key: str) -> Member:
    """A member whose header is read and agrees with the size of the file."""
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in EXPANSION:
        raise damaged(path, key, f"its compression is {info.compress_type}; numpy uses 0 and 8")
    try:
        with archive.open(info) as file:
            version = npy.read_magic(file)
            if version not in HEADERS:  # 3.0 is for field names beyond latin-1
                raise damaged(path, key, f"its format is {version}; numbers have (1, 0) or (2, 0)")
            shape, _, dtype = HEADERS[version](file)
            size = file.tell() + math.prod(shape) * dtype.itemsize
    except DAMAGE as error:
        raise damaged(path, key, one_line(error)) from error
    found = Member(archive, path, key, shape, dtype)
    if dtype.hasobject:  # what follows the header is a pickle of any length
        raise found.wrong(
            "holds Python objects, which are never unpickled",
            f"store numbers: {key}.astype(...), or numpy.stack of arrays of one shape",
        )
    most = min(info.compress_size, path.stat().st_size) * EXPANSION[info.compress_type]
    if size != info.file_size or size > most:
        there = min(info.file_size, most)
        raise damaged(path, key, f"{size} bytes are declared, shape {shape}, and {there} are there")
    return found


def damaged(path: Path, key: str, why: str) -> UsageError:
    return UsageError(
        f"{path}: {key} is truncated or damaged", details=[why], remedy="make or copy it anew"
    )


def images(x: Member) -> Values:
    """uint8, or floats in [0, 1]; (N, H, W), (N, C, H, W) or (N, D)."""
    if len(x.shape) not in (2, 3, 4):
        raise x.wrong(f"has shape {x.shape}", "give (N, H, W), (N, H, W, C) or (N, D)")
    if 0 in x.shape:
        raise x.wrong(f"has no examples: its shape is {x.shape}")
    if x.dtype.kind in "iub" and x.dtype != np.uint8:
        raise x.wrong(
            f"is {x.dtype}; images are uint8, or floats from 0 to 1",
            "x.astype(numpy.uint8) for values from 0 to 255",
        )
    if x.dtype.kind not in "uf":
        raise x.wrong(f"is {x.dtype}, no real numbers", "give uint8, or floats from 0 to 1")
    values = x.values()
    if values.dtype != np.uint8:
        check_range(x, values)
    return channels_first(x, values)


def check_range(x: Member, values: Values) -> None:
    low, high = float(values.min()), float(values.max())  # nan if there is one
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    if bad := values.size - int(np.isfinite(values).sum()):
        raise x.wrong(f"has {bad} NaN or infinite values of {values.size}", "replace them")
    remedy = "store (x - x.min()) / (x.max() - x.min())"
    if low >= 0 and 2 <= high <= 255:
        remedy = "store x / 255, or uint8"
    elif low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        remedy = "store (x + 1) / 2"
    raise x.wrong(f"lies in [{low:g}, {high:g}]; floats must lie in [0, 1]", remedy)


def channels_first(x: Member, values: Values) -> Values:
    """(N, H, W, C) to (N, C, H, W): images have fewer channels than rows or columns."""
    if values.ndim == 4 and values.shape[3] <= values.shape[1]:
        values = np.moveaxis(values, 3, 1)
    if values.ndim == 4 and values.shape[1] not in CHANNELS and values.shape[3] in CHANNELS:
        # the core would take these columns for channels
        raise x.wrong(f"has shape {x.shape}, and it is not clear which number counts channels")
    return values


def labels(y: Member, count: int) -> Values:
    """Integers from 0, one for each of `count` examples."""
    if y.dtype.kind not in "iu":
        raise y.wrong(f"is {y.dtype}; labels are integers", "y.astype(numpy.int64)")
    if y.shape != (count,):
        raise y.wrong(f"has shape {y.shape}, and x has {count} examples", f"give shape ({count},)")
    values = y.values()
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= CLASSES:
        raise y.wrong(
            f"lies in [{low}, {high}]; labels go from 0 to at most {CLASSES - 1}",
            "number the classes: numpy.unique(y, return_inverse=True)[1]",
        )
    return values


def names(classes: Member, highest: int) -> tuple[str, ...]:
    """The name of each label."""
    if classes.dtype.kind != "U" or len(classes.shape) != 1 or classes.shape[0] > CLASSES:
        raise classes.wrong(
            f"is {classes.dtype} of shape {classes.shape}; class names are strings in one row",
            "numpy.array(['cat', 'dog'])",
        )
    if classes.shape[0] <= highest:
        raise classes.wrong(f"has {classes.shape[0]} names, and y goes up to {highest}")
    return tuple(map(str, classes.values()))
