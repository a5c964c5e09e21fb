"""Reserves stdout for the JSON answer of a command; the output of plugins goes to stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

STDOUT: list[TextIO] = []  # the real stdout, for answers, while print() writes to stderr


@contextmanager
def reserve_stdout(arguments: Sequence[str]) -> Iterator[None]:
    """With --json, redirect print() to stderr, so that stdout is one JSON object. Characters that a
    terminal's encoding lacks are written as backslash escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "--json" not in arguments or {"--help", "-h"} & set(arguments):
        yield
        return
    STDOUT.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        STDOUT.pop()
