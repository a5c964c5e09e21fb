"""Terminal output: stdout is reserved for the JSON answer of a command, text is made harmless, and
a stdout that cannot be written to is one error."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from latentforge.errors import RunFailed

STDOUT: list[TextIO | None] = []  # the real stdout, for answers, while print() writes to stderr
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: controls, directions, surrogates


def escape_controls(text: str, keep: str = "\n\t") -> str:
    """Replace characters that a terminal interprets or cannot show by backslash escapes.

    These are control characters, marks of the writing direction, and bytes of a file name that are
    not UTF-8. Names and messages from files and plugins could otherwise move the cursor, or forge
    a line of output. `keep` lists the characters to leave.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if c not in keep and unicodedata.category(c) in INVISIBLE
        else c
        for c in text
    )


def write_stdout(text: str) -> None:
    """Write a line to the real stdout. Raises RunFailed if it is closed or its disk is full, and
    BrokenPipeError if its reader has ended."""
    stream = STDOUT[-1] if STDOUT else sys.stdout
    if stream is None:  # the process was started without one: `command >&-`
        raise RunFailed("the result cannot be written to stdout: it is closed")
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        discard_stdout()  # now, because Typer catches the error
        raise
    except OSError as error:
        raise stdout_error(error) from None


def stdout_error(error: OSError) -> RunFailed:
    """Return the error for a failed write to stdout, and discard the rest of the output."""
    discard_stdout()
    return RunFailed(
        f"the result cannot be written to stdout: {error.strerror or error}",
        hint="redirect stdout to a file on a disk with free space",
    )


def flush_stdout() -> None:
    """Write what print() has buffered. Raises the errors of `write_stdout`."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from None


def discard_stdout() -> None:
    """Discard further output, also the rest of a buffer, which Python writes at its exit."""
    stream = STDOUT[-1] if STDOUT else sys.stdout
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
