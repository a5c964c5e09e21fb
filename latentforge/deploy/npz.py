"""Arrays in .npz files: written piece by piece, and read without ever unpickling.

An .npz is a zip of .npy files: a header with type and shape, then the values (NumPy's NEP 1).
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from latentforge.errors import UsageError, one_line

Array = np.ndarray[Any, Any]
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, TokenError),
)


def write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], parts: Iterable[Array]
) -> None:
    """Write float32 `parts`, which make up `shape` along the first dimension, one at a time."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f4").data)


def write_whole(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    """Write an array of numbers or text."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        npy.write_array(file, array, allow_pickle=False)


def read_array(path: Path, name: str) -> Array:
    """One array of numbers. Raises UsageError for a damaged file, another content or an array of
    objects, before any memory is taken for what the header claims."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                names = ", ".join(member.removesuffix(".npy") for member in archive.namelist())
                raise UsageError(f"{path} has no array {name!r}", details=[f"it has {names}"])
            with archive.open(f"{name}.npy") as file:
                size = archive.getinfo(f"{name}.npy").file_size
                return _read(file, size, f"{path}: {name}")
    except DAMAGE as error:
        raise UsageError(f"{path} cannot be read as an .npz file: {one_line(error)}") from None


def _read(file: IO[bytes], size: int, where: str) -> Array:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:  # a later one is for names of fields, which numbers do not have
        raise UsageError(f"{where} has the format {version}, which is not for plain numbers")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise UsageError(f"{where} holds Python objects, which are never unpickled")
    if dtype.kind not in "fiu":
        raise UsageError(f"{where} is {dtype}, not numbers")
    expected = math.prod(shape) * dtype.itemsize
    if size - file.tell() != expected:
        raise UsageError(
            f"{where} is damaged: {size - file.tell()} bytes, "
            f"and {dtype} of shape {shape} takes {expected}"
        )
    values = np.frombuffer(file.read(), dtype)
    return values.reshape(shape, order="F" if fortran else "C")
