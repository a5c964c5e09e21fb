"""The environment variables that torchrun sets for each of its processes. Standard library only."""

from __future__ import annotations

import os
import time

from latentforge.errors import UsageError

PATIENCE = 15.0
"""Seconds that torchrun has to end a process whose error another one tells too."""


def several() -> bool:
    """Whether torchrun has started this process beside others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def count() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if several() else 1


def rank() -> int:
    """The number of this process among all of them, from 0; 0 of one by itself."""
    return int(os.environ.get("RANK", "0")) if several() else 0


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if several() else 0


def again(command: str) -> str:
    """How to start a command as this one was started. `--`: torchrun takes options that begin as
    its own do for its own, such as --run."""
    return f"torchrun ... -m -- {command}" if several() else command


def refuse(what: str, remedy: str) -> None:
    """UsageError under torchrun for what one process does."""
    if several():
        raise UsageError(f"torchrun is for train, and {what} is of one process", remedy=remedy)


def leave_word_to_the_first() -> None:
    """What is wrong with a request, every process finds by itself. The first one of a machine says
    it and ends, whereupon torchrun ends the others here; who is still there has an error of its
    own."""
    if local_rank():
        time.sleep(PATIENCE)
