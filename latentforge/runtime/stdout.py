"""Keeps what plugins print out of the command's own answer on stdout."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

STDOUT: list[TextIO] = []  # where answers go while print() writes to stderr


@contextmanager
def answers_alone_on_stdout(arguments: Sequence[str]) -> Iterator[None]:
    """With --json what plugins print goes to stderr: stdout is one JSON object. A terminal that has
    not every letter gets what it has."""
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
