"""Handles the signals that stop training: SIGINT (Ctrl-C), and SIGTERM from a scheduler."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from latentforge.errors import RunFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedWaiting(RunFailed):
    """A signal has requested a stop while training waited for something, as for a worker that does
    not answer."""


_received: list[int] = []


def stop_requested() -> bool:
    """Whether a signal has requested that the training of this process stops."""
    return bool(_received)


@contextmanager
def stop_on_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop` with the number of the first signal; a second one calls the previous handler."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    # None is a handler that was not set from Python; an ignored signal stays ignored
    handled = [n for n, handler in previous.items() if handler not in (signal.SIG_IGN, None)]

    def restore_handlers() -> None:
        for number in handled:
            signal.signal(number, previous[number])

    def handle(number: int, _frame: Any) -> None:
        restore_handlers()
        _received.append(number)
        stop(number)

    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore_handlers()
        _received.clear()
