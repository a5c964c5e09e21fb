"""The working folder, which strangers' code leaves as it was: runs have relative paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def folder_kept(changed: list[str] | None = None) -> Iterator[None]:
    """Come back to the working folder; `changed` is told of a need to."""
    before = _here()
    try:
        yield
    finally:
        if before and _here() != before:
            with suppress(OSError):  # it may be gone
                os.chdir(before)
            if changed is not None:
                changed.append("the working folder")


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been deleted
        return ""
