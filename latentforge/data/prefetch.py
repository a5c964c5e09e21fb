"""Prefetch: reads batches ahead in worker processes and copies them through pinned memory to the
device."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from latentforge.data.readers import Reader
from latentforge.errors import RunFailed, one_line
from latentforge.runtime import torchrun
from latentforge.runtime.signals import StoppedWaiting, stop_requested

log = logging.getLogger("latentforge")

WORKER_ERROR = "DataLoader worker"  # the start of torch's errors about workers that have ended
SHARED = "/dev/shm"  # workers pass their batches through this file system
PREFETCHED = 2  # batches that each worker reads ahead: torch's default
TICK = 2.0  # seconds after which a wait for a worker checks whether a stop is requested
PATIENCE = 300.0  # seconds after which a worker that does not answer is an error
KILL_DELAY = 10.0  # most seconds to wait until the system has ended a worker that was killed
FORK_DELAY = 0.05
"""Seconds to wait before workers are forked if several processes train together. After each
all-reduce, a Gloo thread requests the interpreter lock; a child that is forked at that moment waits
forever."""


def ignore_signals(_worker: int) -> None:
    """Ignore signals in a worker. A terminal's Ctrl-C and a scheduler's SIGTERM reach workers too,
    but the run still needs batches until it has saved a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def worker_error(error: BaseException) -> RunFailed | None:
    """Return a RunFailed if `error` is torch's error about a worker that has ended, else None."""
    if not isinstance(error, RuntimeError) or not str(error).startswith(WORKER_ERROR):
        return None
    return RunFailed(
        "a worker process that reads images has ended (data.workers)",
        details=[one_line(error)],
        hint="`latentforge train --resume RUN`; if memory or space in /dev/shm ran out, "
        "with fewer data.workers, or with --set data.workers=0",
    )


def lack_of_memory(workers: int, batch: int) -> str:
    """Return why workers cannot be used for batches of `batch` bytes, or an empty string. Without
    room for the batches in /dev/shm, as in a container, a worker would wait for ever."""
    try:
        free = os.statvfs(SHARED)
    except (OSError, AttributeError):  # another system
        return ""
    needed = (PREFETCHED * workers + 1) * batch
    if not workers or needed <= free.f_bavail * free.f_frsize:
        return ""
    size = free.f_blocks * free.f_frsize
    return f"{needed:,} bytes are needed in {SHARED}, of whose {size:,} bytes fewer are free"


def usable_workers(workers: int, batch: int) -> int:
    """Return `workers`, or 0, with a warning, if there is no room for their batches."""
    if not (reason := lack_of_memory(workers, batch)):
        return workers
    announce(f"images are read without the workers of data.workers={workers}: {reason}")
    return 0


@cache
def announce(message: str) -> None:
    """Log a warning once, because every pass over a split has the same reason for it."""
    log.warning(message)


def unwrap(result: Tensor | RunFailed) -> Tensor:
    """Return the images, or raise the RunFailed of a reader that could not read them."""
    if isinstance(result, RunFailed):
        raise result
    return result


class Prefetcher:
    """Prefetches batches from `reader` to `device`, in order and in their stored dtype. `batches`
    contains the image indices of each batch.

    On CUDA, the next batch is copied from pinned memory on a separate stream during the step that
    uses the previous one.
    """

    def __init__(
        self, reader: Reader, batches: Sequence[Sequence[int]], workers: int, device: torch.device
    ) -> None:
        self.device = device
        self.copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.remaining = len(batches)
        source = reader.source
        size = max(map(len, batches), default=0) * source.dtype.itemsize
        workers = usable_workers(workers, size * math.prod(source.shape[1:]))
        if workers and torchrun.is_distributed():
            time.sleep(FORK_DELAY)
        loader: DataLoader[Any] = DataLoader(
            reader,  # type: ignore[arg-type]  # a list of indices instead of one
            batch_size=None,
            sampler=batches,
            num_workers=workers,
            timeout=TICK if workers else 0,
            pin_memory=self.copy_stream is not None,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # not the default one, which generates the step's noise
        )
        before = {*multiprocessing.active_children()}
        self._batches: Iterator[Any] | None = iter(loader)
        self._workers = {*multiprocessing.active_children()} - before
        self._ready: Tensor | None = None

    def next(self) -> Tensor:
        """The next batch. Raises RunFailed if it cannot be read or a worker has ended."""
        x = self._read_next() if self._ready is None else self._ready
        self.remaining -= 1
        if self.copy_stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.copy_stream)  # before the next copy is queued on that stream
            x.record_stream(current)
        if not self.remaining:  # not in a destructor: other workers may have started by then
            self.close()
        elif self.copy_stream is not None:
            self._ready = self._read_next()
        return x

    def _read_next(self) -> Tensor:
        result = self._wait()
        x = unwrap(result)
        if self.copy_stream is None:
            return x.to(self.device)
        with torch.cuda.stream(self.copy_stream):
            return x.to(self.device, non_blocking=True)

    def _wait(self) -> Any:
        """The next result of a worker. Raises StoppedWaiting after a signal, and RunFailed if a
        worker has ended or does not answer."""
        assert self._batches is not None
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return next(self._batches)
            except RuntimeError as error:
                if failure := worker_error(error):
                    raise failure from error
                if "timed out" not in str(error):
                    raise
            # outside of `except`, because its traceback would keep the iterator alive
            if stop_requested() and not torchrun.is_distributed():
                self.close()
                raise StoppedWaiting("stopped while waiting for a worker process")
            if time.monotonic() > end:
                self.close()
                raise RunFailed(
                    f"a worker process that reads images has not answered for {PATIENCE:g} s",
                    hint="`latentforge train --resume RUN --set data.workers=0`",
                )

    def close(self) -> None:
        """End the workers. torch asks them to end and then sends SIGTERM, which they ignore, so
        that a worker that hangs is killed."""
        self._batches = self._ready = None
        for worker in self._workers:
            worker.kill()
            worker.join(KILL_DELAY)
        self._workers.clear()
