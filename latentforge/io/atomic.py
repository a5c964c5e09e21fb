"""Writes files atomically and durably, and reads files of unknown origin with limits.

Owns how bytes get onto the disk and off it again; what they mean is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

JSON_LIMIT = 16 * 2**20
"""Bytes; a larger JSON file is none that LatentForge has written."""
LARGEST = 2**28
"""Bytes of a picture or of a file of lines; a run of a million epochs has no more."""


def write_synced(path: Path, data: bytes) -> None:
    """A new file whose bytes are on the disk when this returns."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Names in the folder, as of a rename, are on the disk when this returns."""
    if os.name == "nt":  # Windows opens no folder, and its renames are journalled
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_synced(path: Path, data: bytes, temporary: Path) -> None:
    """`data` in place of what `path` held: a reader sees all of the old or all of the new.

    `temporary` lies in the same folder; what a killed writer left there gives way.
    """
    temporary.unlink(missing_ok=True)
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def sha256(path: Path) -> str:
    """The hash of a file of any size, which is never in memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path, limit: int = LARGEST) -> bytes:
    """A plain file. Raises OSError, and ValueError for one that is too large or no plain file: a
    pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"it has more than {limit} bytes")
        return file.read(limit)


def read_json(path: Path) -> Any:
    """A JSON file. Raises OSError, and ValueError for one that is too large, too deep or no JSON:
    a reader has one kind of fault to name."""
    return parse_json(read_bytes(path, JSON_LIMIT))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError also where it is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, with their ends; none where there is no file. Bytes that are no
    text become marks, so that a line with them is no JSON."""
    if not path.exists():
        return []
    return read_bytes(path).decode("utf-8", errors="replace").splitlines(keepends=True)


def leads_out(path: Path, folder: Path) -> bool:
    """Whether `path`, which is named inside `folder`, is or follows a link to somewhere else."""
    return not path.resolve().is_relative_to(folder.resolve())
