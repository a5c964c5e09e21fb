"""Reads the environment that torchrun sets for each of its processes. Standard library only."""

from __future__ import annotations

import os
import time

from latentforge.errors import UsageError

DEFER_SECONDS = 15.0  # wait for torchrun to end this process; the first one reports the error


def is_distributed() -> bool:
    """Whether torchrun has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def world_size() -> int:
    """The number of processes that train together (the world size)."""
    return int(os.environ["WORLD_SIZE"]) if is_distributed() else 1


def rank() -> int:
    """The rank of this process among all processes, from 0; 0 for a single process."""
    return int(os.environ.get("RANK", "0")) if is_distributed() else 0


def local_rank() -> int:
    """The rank of this process among the processes on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0


def restart_command(command: str) -> str:
    """Return a command line that starts `command` in the way this process was started. Without the
    `--`, torchrun would parse options that start like its own, such as --run."""
    return f"torchrun ... -m -- {command}" if is_distributed() else command


def reject(command: str, hint: str) -> None:
    """Raise UsageError under torchrun, for a command that runs in one process."""
    if is_distributed():
        raise UsageError(
            f"only `train` supports torchrun; {command} runs in a single process", hint=hint
        )


def defer_to_first_process() -> None:
    """Let the first process of a machine report an error that every process finds by itself.

    When the first process has ended, torchrun ends the others on the machine. A process that is
    still running after the wait has an error of its own, which the caller then reports."""
    if local_rank():
        time.sleep(DEFER_SECONDS)
