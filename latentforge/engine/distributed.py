"""Distributed training under torchrun: how a process joins the others, and how it leaves them.

A process that trains by itself joins nothing, and imports none of it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentforge.config.schema import RunConfig
from latentforge.errors import LostProcess
from latentforge.runs.folder import create_run_folder
from latentforge.runtime import torchrun
from latentforge.runtime.signals import stop_on_signals

if TYPE_CHECKING:
    from latentforge.runtime.process_group import ProcessGroup


def join_processes(config: RunConfig, device: torch.device) -> ProcessGroup:
    """Join the processes that torchrun has started to train together."""
    from latentforge.runtime.process_group import join

    return join(device, config.train.batch_size)


def create_shared_folder(
    wanted: Path | None, root: Path, name: str, processes: ProcessGroup | None
) -> Path:
    """The folder of a new run, which the first of several processes makes for all."""
    if processes is None:
        return create_run_folder(wanted, root, name)
    return Path(processes.once(lambda: str(create_run_folder(wanted, root, name))))


@contextmanager
def training_with_others(run: Path, processes: ProcessGroup) -> Iterator[None]:
    """To an end that is written before any of several processes leaves.

    torchrun sends SIGTERM to all as soon as one has ended. A first signal therefore ends no
    process, it asks for the end of the training, and none keeps a process from saying that another
    one was lost; torchrun ends it half a minute later in any case.
    """
    processes.remedy = torchrun.again(f"latentforge train --resume {run}")
    try:
        with stop_on_signals(processes.on_signal), processes.together_to_the_end():
            yield
    except LostProcess:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
