"""Handles the signals that stop training: SIGINT (Ctrl-C), and SIGTERM from a scheduler."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ASKS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop` with the number of the first signal; a second one goes to the old handler."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = {number: signal.getsignal(number) for number in ASKS}
    # None is a handler that was not set from Python; a job that ignores a signal still ignores it
    taken = [n for n, handler in previous.items() if handler not in (signal.SIG_IGN, None)]

    def give_back() -> None:
        for number in taken:
            signal.signal(number, previous[number])

    def asked(number: int, _frame: Any) -> None:
        give_back()
        stop(number)

    for number in taken:
        signal.signal(number, asked)
    try:
        yield
    finally:
        give_back()
