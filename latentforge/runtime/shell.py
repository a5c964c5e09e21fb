"""Says whether hints are for a shell. Separate, because every command needs it at its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_shell: ContextVar[bool] = ContextVar("is_shell", default=False)


def is_shell() -> bool:
    """Whether hints have the form of the command line."""
    return _is_shell.get()


@contextmanager
def in_shell() -> Iterator[None]:
    """Leave hints in the form of the command line."""
    token = _is_shell.set(True)
    try:
        yield
    finally:
        _is_shell.reset(token)
