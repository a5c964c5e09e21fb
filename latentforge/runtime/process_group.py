"""The process group of a distributed training: its collectives, timeout and signals."""

from __future__ import annotations

import atexit
import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentforge import errors
from latentforge.errors import Interrupted, LatentForgeError, LostProcess, UsageError, one_line
from latentforge.runtime import torchrun

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for one that does not answer; one that has ended is noticed at once."""


class ProcessGroup:
    """All of them, seen from this one; joins them. Ignite's own `initialize` would take a GPU for
    each where there is one, also for a training on the CPU; `idist` follows what is set up here.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.device = torchrun.rank(), device
        self.first = self.rank == 0  # it alone writes and speaks
        self.signal_asked = 0  # the signal that asked this process for the end
        self.signal_received = 0  # the one that some process was asked by; all know it after a step
        self.remedy = ""  # where to go on after a process was lost
        if not self.first:
            logging.getLogger("latentforge").setLevel(logging.ERROR)
        self.began = not dist.is_initialized()
        if self.began:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            with self._watched("at the start"):
                dist.init_process_group(
                    "nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT
                )
        self.count = dist.get_world_size()
        # words go over the CPU, as a GPU would be waited for; None is the group of all
        self.words = dist.new_group(backend="gloo") if device.type == "cuda" else None
        atexit.register(self._leave)

    def _leave(self) -> None:
        """A thread of gloo lets go of a tensor when it likes, and where the interpreter has ended
        by then, that is a SIGABRT. A group that nobody holds waits for its threads."""
        self.words = None
        if self.began and dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def _watched(self, when: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch's errors of connections are all of this kind
            raise LostProcess(
                f"another process has ended or does not answer, {when}",
                details=[f"process {self.rank}: {one_line(error)}"],
                remedy=self.remedy,
            ) from error

    def all_reduce(self, flat: Tensor, when: str) -> None:
        """The sum over all processes in the place of `flat`, on the device; LostProcess."""
        with self._watched(when):
            dist.all_reduce(flat)

    def any(self, flag: bool, when: str) -> bool:
        """Whether `flag` is set in any process."""
        told = torch.tensor([flag], dtype=torch.int32)
        with self._watched(when):
            dist.all_reduce(told, dist.ReduceOp.MAX, group=self.words)
        return bool(told)

    def barrier(self, when: str) -> None:
        """Until all are here."""
        self.any(False, when)

    def broadcast(self, value: Any, when: str) -> Any:
        """The JSON value that the first process has; what others give does not matter."""
        text = json.dumps(value).encode() if self.first else b""
        size = torch.tensor([len(text)])
        with self._watched(when):
            dist.broadcast(size, 0, group=self.words)
            held = torch.frombuffer(bytearray(text or int(size)), dtype=torch.uint8)
            dist.broadcast(held, 0, group=self.words)
        return json.loads(held.numpy().tobytes())

    def once(self, make: Callable[[], str]) -> str:
        """What `make` returns in the first process, where alone it is called. The error that it
        raises there is raised everywhere."""
        told: dict[str, Any] = {}
        failed: LatentForgeError | None = None
        if self.first:
            try:
                told["made"] = make()
            except LatentForgeError as error:
                failed = error
                told["error"] = [type(error).__name__, error.message, error.details, error.remedy]
        told = self.broadcast(told, "at the start")
        if failed:
            raise failed
        if "error" in told:
            kind, message, details, remedy = told["error"]
            raise getattr(errors, kind, LatentForgeError)(message, details=details, remedy=remedy)
        made: str = told["made"]
        return made

    def equalise(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of the first: the same seed need not give the
        same bits on other processors."""
        with self._watched("at the start"), torch.no_grad():
            for value in module.state_dict().values():
                if isinstance(value, Tensor):
                    held = value.contiguous()
                    dist.broadcast(held, 0)
                    value.copy_(held)

    def on_signal(self, number: int = signal.SIGINT) -> None:
        """For a signal handler: what asks one process for the end asks all, at the next step."""
        self.signal_asked = number

    @contextmanager
    def together_to_the_end(self) -> Iterator[None]:
        """No process leaves before the others have written how it ended: torchrun would end them.

        After an error nobody waits: who caused it may be gone.
        """
        try:
            yield
        except Interrupted:
            with suppress(LostProcess):
                self.barrier("at the end")
            raise
        with suppress(LostProcess):
            self.barrier("at the end")


def join(device: torch.device, batch_size: int) -> ProcessGroup:
    """Join the others. UsageError where a batch has fewer images than there are processes."""
    together = ProcessGroup(device)
    if batch_size < together.count:
        raise UsageError(
            f"a batch of {batch_size} images cannot be shared by {together.count} processes",
            remedy=f"--batch-size {together.count} or more, or a lower --nproc-per-node",
        )
    return together
