"""The process group of distributed training: collectives, timeout and signals."""

from __future__ import annotations

import atexit
import json
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentforge import errors
from latentforge.errors import Interrupted, LatentForgeError, LostProcess, UsageError, one_line
from latentforge.runtime import torchrun
from latentforge.runtime.stdout import escape_controls

# How long to wait for a process that does not respond. The end of a process is noticed at once, but
# Gloo rarely misses it (2 of 1,500 trials). A collective then waits until torchrun ends it.
TIMEOUT = timedelta(minutes=30)
POLL = timedelta(seconds=1)  # Python handles a signal only between two calls of `Work.wait`
REPORT_AFTER = 15.0  # seconds after a signal; torchrun ends a process 30 seconds after SIGTERM


class ProcessGroup:
    """The processes that train together, as seen from this one; the constructor joins the group.

    Ignite's `initialize` is not used: it would assign a GPU to each process if there is one,
    even when training on the CPU. `idist` uses the group that is initialized here.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.device = torchrun.rank(), device
        self.is_first = self.rank == 0  # only this process writes files and prints
        self.own_signal = 0  # the signal that this process received
        self.report_at = math.inf  # when to report, after a signal, that a collective still waits
        self.signal_received = 0  # a signal that any process received; after a step, all agree
        self.hint = ""  # the hint after a process is lost: how to resume
        if not self.is_first:
            logging.getLogger("latentforge").setLevel(logging.ERROR)
        self.owns_group = not dist.is_initialized()
        on_gpu = device.type == "cuda"
        if self.owns_group:
            if on_gpu:
                torch.cuda.set_device(device)
            with self._raise_lost_process("at the start"):
                dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
        self.world_size = dist.get_world_size()
        # Control messages use Gloo to avoid a GPU sync; None is the default group.
        self.control_group = dist.new_group(backend="gloo") if on_gpu else None
        atexit.register(self._leave)

    def _leave(self) -> None:
        """Close the group at exit. A Gloo thread can free a tensor at any time, which causes a
        SIGABRT if the interpreter has ended. When the last reference to a group is dropped, its
        destructor waits for its threads."""
        self.control_group = None
        if self.owns_group and dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def _raise_lost_process(self, when: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the type of all connection errors in torch
            raise self._lost_process(when, one_line(error)) from error

    def _lost_process(self, when: str, detail: str) -> LostProcess:
        return LostProcess(
            f"another process has ended or does not respond ({when})",
            details=[f"process {self.rank}: {detail}"],
            hint=self.hint,
        )

    def _wait(self, work: dist.Work | None, when: str) -> None:
        """Wait for a collective of Gloo, and handle signals meanwhile. Raises LostProcess."""
        with self._raise_lost_process(when):
            while work is not None:
                try:
                    work.wait(POLL)
                    return
                except RuntimeError:
                    if work.is_completed():  # it has failed, or has ended since
                        work.wait()
                        return
                if time.monotonic() > self.report_at:
                    self.report_at = math.inf
                    name = signal.Signals(self.own_signal).name
                    detail = f"has waited for {REPORT_AFTER:.0f} seconds since {name}"
                    text = escape_controls(f"error: {self._lost_process(when, detail)}")
                    sys.stderr.write(f"{text}\n")
                    sys.stderr.flush()

    def all_reduce(self, flat: Tensor, when: str) -> None:
        """Replace `flat`, a tensor on the device, by its sum over all processes. Raises
        LostProcess."""
        on_cpu = flat.device.type == "cpu"
        with self._raise_lost_process(when):
            work = dist.all_reduce(flat, async_op=on_cpu)
        self._wait(work, when)

    def any(self, flag: bool, when: str) -> bool:
        """Whether `flag` is set in any process. Raises LostProcess."""
        result = torch.tensor([flag], dtype=torch.int32)
        with self._raise_lost_process(when):
            work = dist.all_reduce(result, dist.ReduceOp.MAX, self.control_group, async_op=True)
        self._wait(work, when)
        return bool(result)

    def barrier(self, when: str) -> None:
        """Wait until all processes have reached this call. Raises LostProcess."""
        self.any(False, when)

    def broadcast(self, value: Any, when: str) -> Any:
        """Return the JSON value of the first process in every process; other values are ignored.
        Raises LostProcess."""
        text = json.dumps(value).encode() if self.is_first else b""
        size = torch.tensor([len(text)])
        self._broadcast(size, when)
        buffer = torch.frombuffer(bytearray(text or int(size)), dtype=torch.uint8)
        self._broadcast(buffer, when)
        return json.loads(buffer.numpy().tobytes())

    def _broadcast(self, tensor: Tensor, when: str) -> None:
        with self._raise_lost_process(when):
            work = dist.broadcast(tensor, 0, self.control_group, async_op=True)
        self._wait(work, when)

    def call_in_first(self, function: Callable[[], str]) -> str:
        """Call `function` in the first process only and return its result in every process. A
        LatentForgeError that it raises is raised in every process."""
        reply: dict[str, Any] = {}
        failed: LatentForgeError | None = None
        if self.is_first:
            try:
                reply["made"] = function()
            except LatentForgeError as error:
                failed = error
                reply["error"] = [type(error).__name__, error.message, error.details, error.hint]
        reply = self.broadcast(reply, "at the start")
        if failed:
            raise failed
        if "error" in reply:
            kind, message, details, hint = reply["error"]
            raise getattr(errors, kind, LatentForgeError)(message, details=details, hint=hint)
        return str(reply["made"])

    def check_equal(self, facts: Mapping[str, Any]) -> None:
        """Raise UsageError in every process if a fact, a JSON value, differs between processes. The
        error names the facts and the processes."""
        first = self.broadcast(dict(facts), "at the start")
        own = json.loads(json.dumps(dict(facts)))
        different = torch.zeros(self.world_size, len(first), dtype=torch.int32)
        for i, name in enumerate(first):
            different[self.rank, i] = own.get(name) != first[name]
        with self._raise_lost_process("at the start"):
            dist.all_reduce(different, group=self.control_group)
        if ranks := different.any(1).nonzero().flatten().tolist():
            names = [name for i, name in enumerate(first) if different[:, i].any()]
            who = f"process {ranks[0]}" if len(ranks) == 1 else f"processes {ranks}"
            raise UsageError(
                f"{who} of {self.world_size} and process 0 differ in {', '.join(names)}",
                details=[f"process 0: {name}: {first[name]}" for name in names]
                + [f"process {self.rank}: {name}: {own.get(name)}" for name in names if self.rank],
                hint="start all processes with the same command, data and versions",
            )

    def broadcast_weights(self, module: nn.Module) -> None:
        """Copy the weights and buffers of the first process to all processes. With the same seed,
        they may differ in their last bits on a different type of processor."""
        with self._raise_lost_process("at the start"), torch.no_grad():
            for value in module.state_dict().values():
                if isinstance(value, Tensor):
                    buffer = value.contiguous()
                    dist.broadcast(buffer, 0)
                    value.copy_(buffer)

    def on_signal(self, number: int) -> None:
        """Handle a signal: a signal to one process stops all processes at the next step."""
        self.own_signal, self.report_at = number, time.monotonic() + REPORT_AFTER

    @contextmanager
    def wait_for_all_at_end(self) -> Iterator[None]:
        """Wait at the end until all processes have written their results, because torchrun ends the
        others when one exits. After an error, do not wait: its cause may be a lost process."""
        try:
            yield
        except Interrupted:
            with suppress(LostProcess):
                self.barrier("at the end")
            raise
        with suppress(LostProcess):
            self.barrier("at the end")


def join(device: torch.device, batch_size: int) -> ProcessGroup:
    """Join the process group. Raises UsageError if a batch has fewer images than processes."""
    processes = ProcessGroup(device)
    if batch_size < processes.world_size:
        raise UsageError(
            f"a batch of {batch_size} images cannot be split over {processes.world_size} processes",
            hint=f"--batch-size {processes.world_size} or more, or a smaller --nproc-per-node",
        )
    return processes
