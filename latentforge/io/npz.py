"""Reads and writes arrays in .npz and .npy files, one array at a time, without pickle.

numpy's loader is not used to read: it allocates the size that a header claims, and it can unpickle.
Here a header must agree with the file size before memory is allocated, and object arrays are
rejected.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

from latentforge.errors import MissingError, UsageError, one_line, similar_paths
from latentforge.io.paths import check_regular, quoted

Array = np.ndarray[Any, Any]

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
EXPANSION = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}  # maximum bytes that one stored byte expands to
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, RuntimeError, OverflowError),
    *(BadZipFile, zlib.error, struct.error, TokenError),
)


def check_exists(path: Path, where: str) -> None:
    """Raise MissingError if there is no file, with the files beside it that it can mean."""
    if not path.exists():
        close = similar_paths(path, path.parent.glob(f"*{path.suffix}") if path.suffix else ())
        raise MissingError(
            f"{where}: the file {path} does not exist",
            hint=close or "give the path of an existing file",
        )


def open_archive(path: Path, where: str) -> ZipFile:
    """Open an .npz file as a zip archive; `where` names the file's role in errors.

    Raises MissingError if there is no file, and UsageError if it is not a readable .npz file.
    """
    check_exists(path, where)
    check_regular(path, where)
    if path.is_dir():
        option = quoted(f"data.root={path}")
        hint = f"--data folder --set {option}, if it contains images"
        raise UsageError(f"{where}: {path} is not an .npz file but a folder", hint=hint)
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(6)
        return ZipFile(path)
    except DAMAGE as error:
        problem, hint = "not an .npz file", "write it with numpy.savez"
        if start == b"\x93NUMPY":
            problem = "a single array (.npy), not an .npz file"
        elif start.startswith(b"PK"):
            problem, hint = "truncated or damaged", "create or copy the file again"
        raise UsageError(
            f"{where}: {path} is {problem}", details=[one_line(error)], hint=hint
        ) from error


def list_keys(archive: ZipFile) -> list[str]:
    """The names of the arrays in the archive, sorted."""
    return sorted(n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy"))


@dataclass(frozen=True)
class Member:
    """One array of a file. Only its header has been read; `values` reads the data."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]

    def error(self, problem: str, hint: str = "") -> UsageError:
        return UsageError(f"{self.path}: {self.key} {problem}", hint=hint)

    def values(self) -> Array:
        """Read the array. Raises UsageError if the bytes are damaged."""
        try:
            return self.read()
        except DAMAGE as error:
            raise damage_error(self.path, self.key, one_line(error)) from error

    def check(self, start: int, declared: int, limit: int) -> None:
        """Raise UsageError for an object array or if the sizes disagree. `start` is the size of the
        header, `declared` the declared total size, `limit` the largest possible size."""
        if self.dtype.hasobject:  # a pickle of any length follows the header
            raise self.error(
                "contains Python objects, which LatentForge does not unpickle",
                "numpy.stack(x) converts arrays of equal shape, y.astype(str) converts names",
            )
        size = start + math.prod(self.shape) * self.dtype.itemsize
        if size != declared or size > limit:
            reason = (
                f"the header declares {size} bytes (shape {self.shape}), but the file has "
                f"{min(declared, limit)}"
            )
            raise damage_error(self.path, self.key, reason)


def read_member(archive: ZipFile, path: Path, key: str) -> Member:
    """Read the header of the array `key` and check it against the file size. Raises UsageError if
    they disagree, if there is no such array, and for object arrays."""
    if key not in (names := list_keys(archive)):
        raise UsageError(
            f"{path} has no key {key}; existing keys: {', '.join(map(repr, names[:10])) or 'none'}",
            hint="write it with numpy.savez(path, x=images, y=labels), or with official splits as "
            "numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
            if key == "x"
            else f"write it with numpy.savez(path, {key}=...)",
        )
    info = archive.getinfo(f"{key}.npy")
    if (kind := info.compress_type) not in EXPANSION:
        raise damage_error(path, key, f"its compression is {kind}; numpy uses 0 and 8")

    def read() -> Array:
        check_memory(path, key, info.file_size)
        with archive.open(info) as file:
            values: Array = npy.read_array(file, allow_pickle=False)
        return values

    try:
        with archive.open(info) as file:
            shape, _, dtype = _header(file)
            start = file.tell()
    except DAMAGE as error:
        raise damage_error(path, key, one_line(error)) from error
    result = Member(path, key, shape, dtype, read)
    limit = min(info.compress_size, path.stat().st_size) * EXPANSION[kind]
    result.check(start, info.file_size, limit)
    return result


def check_memory(path: Path, key: str, size: int) -> None:
    """Raise UsageError if an array needs more memory than there is: a small compressed file can
    contain a thousand times its size."""
    from latentforge.runtime.memory import format_bytes, host_memory  # imports torch

    if size > (free := host_memory()):
        raise UsageError(
            f"{path}: {key} takes {format_bytes(size)}, but only {format_bytes(free)} are free",
            hint="store it with numpy.save as an .npy file, which is read in parts",
        )


def map_array(path: Path, where: str) -> Member:
    """Memory-map the array of an .npy file, so that only accessed parts are read. `where` names the
    option in errors.

    Raises MissingError if there is no file, and UsageError unless it is a complete array of numbers
    in C order.
    """
    check_exists(path, where)
    check_regular(path, where)
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file)
            start, size = file.tell(), path.stat().st_size
    except DAMAGE as error:
        raise UsageError(
            f"{where}: {path} is not an .npy file",
            details=[one_line(error)],
            hint="write it with numpy.save",
        ) from error
    result = Member(
        path, "the array", shape, dtype, lambda: np.memmap(path, dtype, "r", start, shape)
    )
    result.check(start, size, size)
    if fortran and len(shape) > 1:
        raise result.error(
            "is in Fortran order", "write it with numpy.save(path, numpy.ascontiguousarray(x))"
        )
    return result


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype. Raises ValueError if there is no valid header."""
    version = npy.read_magic(file)
    if version not in HEADERS:  # 3.0 is for field names beyond latin-1
        raise ValueError(f"its .npy version is {version}, not (1, 0) or (2, 0)")
    return HEADERS[version](file)


def damage_error(path: Path, key: str, reason: str) -> UsageError:
    return UsageError(
        f"{path}: {key} is truncated or damaged",
        details=[reason],
        hint="create or copy the file again",
    )


def write_array(archive: ZipFile, key: str, shape: tuple[int, ...], parts: Iterable[Array]) -> None:
    """Write an array of `shape` as float32. `parts` are its chunks along the first dimension."""
    with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f4").data)


def write_whole(archive: ZipFile, key: str, array: Array) -> None:
    """Write an array of numbers or text."""
    with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
        npy.write_array(file, array, allow_pickle=False)
