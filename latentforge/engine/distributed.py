"""Distributed training under torchrun: how a process joins and leaves the process group.

A single-process run does not import the process group.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentforge._version import __version__
from latentforge.config.changes import flatten, is_path
from latentforge.config.schema import RunConfig
from latentforge.errors import LostProcess
from latentforge.io.paths import quoted
from latentforge.runs.folder import create_run_folder
from latentforge.runtime import torchrun
from latentforge.runtime.signals import stop_on_signals

if TYPE_CHECKING:
    from latentforge.data.splits import DataSplits
    from latentforge.runtime.process_group import ProcessGroup


def join_processes(config: RunConfig, device: torch.device, splits: DataSplits) -> ProcessGroup:
    """Join the process group of the processes that torchrun has started. Raises UsageError in every
    process if they have different data, configurations or versions."""
    from latentforge.runtime.process_group import join

    processes = join(device, config.train.batch_size)
    # paths may differ between machines; the fingerprint covers the data
    settings = {k: v for k, v in flatten(config.as_dict()).items() if not is_path(config, k)}
    stored = json.dumps(settings, sort_keys=True)
    processes.check_equal(
        {
            "the number of images": {name: len(part) for name, part in splits.splits.items()},
            "the data": f"{splits.fingerprint} {splits.spec}",
            "the runs in the roles": {n: role.digest for n, role in config.loaded_roles.items()},
            "the configuration": hashlib.sha256(stored.encode()).hexdigest(),
            "versions": f"LatentForge {__version__}, torch {torch.__version__}",
        }
    )
    return processes


def create_shared_folder(
    requested: Path | None, root: Path, name: str, processes: ProcessGroup | None
) -> Path:
    """Create the folder of a new run. With several processes, rank 0 creates it for all."""
    if processes is None:
        return create_run_folder(requested, root, name)
    return Path(processes.call_in_first(lambda: str(create_run_folder(requested, root, name))))


@contextmanager
def train_in_group(run: Path, processes: ProcessGroup) -> Iterator[None]:
    """Run the block so that no process exits before all of them have written their results.

    torchrun sends SIGTERM to all processes as soon as one has ended. The first signal therefore
    does not end a process; it requests the end of training. A process that has lost another one
    ignores SIGTERM, so that it can report the loss. torchrun kills it half a minute later anyway.
    """
    processes.hint = torchrun.restart_command(f"latentforge train --resume {quoted(run)}")
    try:
        with stop_on_signals(processes.on_signal), processes.wait_for_all_at_end():
            yield
    except LostProcess:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
