"""Atomic and durable file writes, and size-limited reads of files of unknown origin.

This module handles bytes, lines and JSON only; the caller interprets the content.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

JSON_LIMIT = 16 * 2**20  # bytes; LatentForge does not write larger JSON files
LONGEST_INT = 20  # digits of an integer with 64 bits, and its sign
LARGEST = 2**28  # default limit in bytes; the metrics of a million epochs stay below it


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and fsync it. Raises FileExistsError if the file exists."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that new and renamed entries are on the disk when this returns."""
    if os.name == "nt":  # Windows cannot open a folder, and it journals renames
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unpredictable() -> str:
    """Return a part of the name of a temporary file. Nobody can create a file or a link with that
    name first, and two processes in different containers cannot choose the same one."""
    return f"{os.getpid()}-{os.urandom(8).hex()}"


def replace_synced(path: Path, data: bytes, temporary: Path) -> None:
    """Replace `path` atomically: a reader sees the complete old content or the complete `data`.

    `temporary` must be in the same folder. Raises FileExistsError if it exists.
    """
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def replace_lines(path: Path, lines: Iterable[str], temporary: Path) -> None:
    """Replace a text file atomically by `lines`, which are not held in memory together."""
    with temporary.open("xb") as file:
        file.writelines(line.encode() for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sha256(path: Path) -> str:
    """The SHA-256 of a file as hex. The file is never read into memory as a whole."""
    with path.open("rb") as file:
        import hashlib  # slow to import

        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path, limit: int = LARGEST) -> BinaryIO:
    """Open a file of a run for reading. Raises OSError, and ValueError if it is too large, if it is
    not a regular file (reading a pipe would block), or if it links to a place outside its folder.
    """
    check_file(path)
    file = path.open("rb")
    if os.fstat(file.fileno()).st_size > limit:
        file.close()
        raise ValueError(f"it is larger than {limit} bytes")
    return file


def read_bytes(path: Path, limit: int = LARGEST) -> bytes:
    """Read a file as a whole. Raises the errors of `open_regular`."""
    with open_regular(path, limit) as file:
        return file.read(limit)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError, and ValueError for every other fault (too large, nested too
    deeply, not JSON), so that callers handle only these two."""
    return parse_json(read_bytes(path, JSON_LIMIT))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError if it is invalid, nested too deeply, or contains a number that
    LatentForge does not write: NaN, infinity, or an integer of more than 64 bits."""
    try:
        return json.loads(
            text, parse_int=read_int, parse_float=read_float, parse_constant=read_float
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_int(text: str) -> int:
    if len(text) > LONGEST_INT:
        raise ValueError(f"the number {text[:20]}... has {len(text)} digits")
    return int(text)


def read_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is not finite")
    return number


def iterate_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file of any length with their line ends; nothing if there is no
    file. Bytes that are not UTF-8 become replacement characters. A line that is too long for JSON
    is yielded in parts, which are no JSON. Raises the errors of `open_regular`."""
    if not path.exists():
        return
    with open_regular(path) as file:
        while line := file.readline(JSON_LIMIT):
            yield line.decode("utf-8", errors="replace")


def count_lines(path: Path) -> int:
    """The number of lines of a file; 0 if there is none. Raises the errors of `open_regular`."""
    if not path.exists():
        return 0
    with open_regular(path) as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))


def check_file(path: Path) -> None:
    """Raise ValueError if a path is not a regular file (reading a pipe would block), or if it is a
    link to a place outside its folder."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    if path.is_symlink() and is_outside(path, path.parent):
        raise ValueError("it is a link to a place outside its folder")


def is_outside(path: Path, folder: Path) -> bool:
    """Whether `path`, a path inside `folder`, resolves to a location outside of it."""
    return not path.resolve().is_relative_to(folder.resolve())
