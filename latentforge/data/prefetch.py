"""Prefetch: reads batches ahead in worker processes and copies them through pinned memory to the
device."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from latentforge.data.readers import Reader
from latentforge.errors import RunFailed, one_line
from latentforge.runtime import torchrun

LOST = "DataLoader worker"  # the start of torch's errors about workers that have ended
AT_REST = 0.05
"""Seconds before workers are forked if several processes train together. After each sum over these,
a Gloo thread requests the interpreter lock; a child that is forked at that moment waits forever."""


def leave_signals_alone(_worker: int) -> None:
    """Ignore signals in a worker. A terminal's Ctrl-C and a scheduler's SIGTERM reach workers too,
    but the training still needs the batches before its checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def lost_worker(error: BaseException) -> RunFailed | None:
    """The RunFailed for torch's error about a worker that has ended; None for any other error."""
    if not isinstance(error, RuntimeError) or not str(error).startswith(LOST):
        return None
    return RunFailed(
        "a worker process that reads images has ended (data.workers)",
        details=[one_line(error)],
        remedy="resume the run (train --resume); if memory or space in /dev/shm ran out, "
        "use --set data.workers=0 or fewer workers",
    )


def checked(read: Tensor | RunFailed) -> Tensor:
    """The images. Raises RunFailed if they could not be read."""
    if isinstance(read, RunFailed):
        raise read
    return read


class Ahead:
    """Prefetches the batches of `reader` at `batches`, in order, to `device`, as they are stored.

    On CUDA, the next batch is copied from pinned memory on a separate stream during the step that
    uses the previous one.
    """

    def __init__(
        self, reader: Reader, batches: Sequence[Sequence[int]], workers: int, device: torch.device
    ) -> None:
        self.device = device
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.left = len(batches)
        if workers and torchrun.is_distributed():
            time.sleep(AT_REST)
        loader: DataLoader[Any] = DataLoader(
            reader,  # type: ignore[arg-type]  # a list of indices instead of one
            batch_size=None,
            sampler=batches,
            num_workers=workers,
            pin_memory=self.side is not None,
            worker_init_fn=leave_signals_alone,
            generator=torch.Generator(),  # not the default one, which makes the step's noise
        )
        self._read: Iterator[Any] | None = iter(loader)
        self._ready: Tensor | None = None

    def next(self) -> Tensor:
        """The next batch. Raises RunFailed if it cannot be read or a worker has ended."""
        x = self._pull() if self._ready is None else self._ready
        self.left -= 1
        if self.side is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self.side)  # before the next copy is queued there
            x.record_stream(now)
        if not self.left:  # not in a destructor: other workers may have started by then
            self.close()
        elif self.side is not None:
            self._ready = self._pull()
        return x

    def _pull(self) -> Tensor:
        assert self._read is not None
        try:
            read = next(self._read)
        except RuntimeError as error:
            if lost := lost_worker(error):
                raise lost from error
            raise
        x = checked(read)
        if self.side is None:
            return x.to(self.device)
        with torch.cuda.stream(self.side):
            return x.to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the workers."""
        self._read = self._ready = None
