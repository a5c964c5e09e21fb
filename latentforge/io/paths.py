"""New folders and files that overwrite nothing; text and JSON replaced as a whole."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentforge.errors import RunFailed, UsageError
from latentforge.io.atomic import leads_out, replace_synced


def check_free(path: Path, ignore: Callable[[Path], bool] = lambda _: False) -> None:
    """UsageError where anything is there that a new folder would have to overwrite, RunFailed where
    none can be made."""
    if path.exists() and (not path.is_dir() or not all(map(ignore, path.iterdir()))):
        what = "is not empty" if path.is_dir() else "is a file"
        named = path if path.name else path.resolve()  # "" is the folder that one is in
        raise UsageError(f"{named} {what}; nothing is overwritten", remedy="another folder")
    check_writable(path)


def check_writable(path: Path) -> None:
    """RunFailed where nothing can be made in the folder `path`, or it cannot be made: said before
    the work and not after it."""
    there = next(above for above in (path, *path.absolute().parents) if above.exists())
    if not there.is_dir():
        raise unwritable(path, NotADirectoryError(errno.ENOTDIR, f"{there} is a file"))
    if not os.access(there, os.W_OK):
        raise unwritable(path, PermissionError(errno.EACCES, f"{there} is not writable"))


def numbered_folder(root: Path, stem: str, first: int) -> Path:
    """A new folder `root/<stem>N` with the first free N; two processes never get the same."""
    number = first
    root.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            (root / f"{stem}{number}").mkdir()
            return root / f"{stem}{number}"
        except FileExistsError:
            number += 1


def unwritable(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"cannot write to {path}: {error.strerror or error}",
        remedy="a folder that you can write to, with space left",
    )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(finite(value), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write-new, fsync, rename: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        replace_synced(path, text.encode(), temporary)
    except OSError as error:
        with suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from None


def finite(value: Any) -> Any:
    """The value with None for NaN and infinities, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    if leads_out(path, path.parent):
        raise RunFailed(f"{path} is a link that leads out of its folder: nothing is written there")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(value)) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before a checkpoint that says that the line is there
    except OSError as error:
        raise unwritable(path, error) from None


def create_folder(
    wanted: Path | None,
    root: Path,
    name: str,
    check: Callable[[Path], None],
    ignore: Callable[[Path], bool] = lambda _: False,
) -> Path:
    """A new folder: `wanted`, which must be empty but for what `ignore` accepts, else the first
    free `root/name-N`. `check` raises what is special about a folder that is taken."""
    try:
        if wanted is None:
            return numbered_folder(root, f"{name}-", 1)
        check(wanted)
        check_free(wanted, ignore)
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(wanted or root, error) from None
    return wanted
