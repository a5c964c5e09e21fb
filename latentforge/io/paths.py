"""Creates folders without overwriting anything; writes text and JSON files atomically."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentforge.errors import RunFailed, UsageError
from latentforge.io.atomic import is_outside, replace_synced, unpredictable


def check_free(path: Path, ignore: Callable[[Path], bool] = lambda _: False) -> None:
    """Raise UsageError if `path` is a file or a folder with entries other than those that `ignore`
    accepts, and RunFailed if the folder cannot be created or written to."""
    if path.exists() and (not path.is_dir() or not all(map(ignore, path.iterdir()))):
        problem = "is not empty" if path.is_dir() else "is a file"
        shown = path if path.name else path.resolve()  # the name of "." is ""
        raise UsageError(
            f"{shown} {problem} and will not be overwritten", hint="choose another folder"
        )
    check_writable(path)


def check_writable(path: Path) -> None:
    """Raise RunFailed if the folder `path` cannot be created or written to. Callers check this
    before long work instead of failing after it."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise write_error(path, NotADirectoryError(errno.ENOTDIR, f"{existing} is a file"))
    if not os.access(existing, os.W_OK):
        raise write_error(path, PermissionError(errno.EACCES, f"{existing} is not writable"))


def create_numbered_folder(root: Path, stem: str, number: int) -> Path:
    """Create `root/<stem>N` with the first free N >= `number`; safe for concurrent processes."""
    root.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            (root / f"{stem}{number}").mkdir()
            return root / f"{stem}{number}"
        except FileExistsError:
            number += 1


def write_error(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"cannot write to {path}: {error.strerror or error}",
        hint="use a writable folder with free space",
    )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(replace_nonfinite(value), indent=2) + "\n")


def as_text(path: str | os.PathLike[str]) -> str:
    """Return a path, or text that contains one, as text that UTF-8 can encode. Bytes that are not
    UTF-8 become backslash escapes. Python stores such bytes of a path as surrogates, which files,
    figures and pages cannot contain."""
    text = os.fspath(path)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        text = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda c: f"\\u{ord(c[0]):04x}", text)
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def quoted(text: str | os.PathLike[str]) -> str:
    """Quote an argument of a suggested command for a shell, if that is necessary."""
    return shlex.quote(as_text(text))


def check_regular(path: Path, where: str) -> None:
    """Raise UsageError if a path exists and is neither a file nor a folder: reading a pipe or a
    device would block or never end. `where` names the option."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(
            f"{where}: {path} is not a regular file", hint="copy its content to a file"
        )


def as_cell(value: object) -> object:
    """Return a value of a CSV or TSV table. A string that a spreadsheet would take as a formula
    gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = as_text(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") else text
    return text


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically: a reader sees the complete old or the complete new file.
    Raises RunFailed if the disk fails."""
    temporary = path.with_name(f".{path.name}.{unpredictable()}")
    try:
        replace_synced(path, as_text(text).encode(), temporary)
    except OSError as error:
        with suppress(OSError):  # report the first error
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from None


def replace_nonfinite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not support, by None, also in nested values."""
    if isinstance(value, Mapping):
        return {key: replace_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    if is_outside(path, path.parent):
        raise RunFailed(f"{path} is a link to a place outside its folder and is not written to")
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise RunFailed(f"cannot write to {path}: it is not a regular file", hint="remove it")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(replace_nonfinite(value)) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that relies on this line is written after it
    except OSError as error:
        raise write_error(path, error) from None


def create_folder(
    requested: Path | None,
    root: Path,
    name: str,
    check: Callable[[Path], None],
    ignore: Callable[[Path], bool] = lambda _: False,
) -> Path:
    """Create the folder `requested`, or the first free `root/name-N` if `requested` is None.
    `requested` may contain only entries that `ignore` accepts; `check` may raise a more specific
    error."""
    try:
        if requested is None:
            return create_numbered_folder(root, f"{name}-", 1)
        check(requested)
        check_free(requested, ignore)
        requested.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(requested or root, error) from None
    return requested
