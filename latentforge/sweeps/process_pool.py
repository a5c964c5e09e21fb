"""Runs the jobs of a sweep in worker processes, several at a time."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

from latentforge.errors import Interrupted, Terminated, UsageError
from latentforge.plugins.registry import Registry
from latentforge.runtime.signals import stop_on_signals
from latentforge.sweeps.job import Job, Told

log = logging.getLogger("latentforge")

Take = Callable[[], Job | None]
Ended = Callable[[Job, str], None]  # with the reason if several members cannot be trained together


class Pool:
    """Runs `count` jobs at a time, each in its own process with `threads` threads.

    The lines that the processes write to stderr are logged with the name of the job. `waits` is
    called a few times a second while no process sends a message.
    """

    def __init__(
        self, registry: Registry, folder: Path, count: int, threads: int, waits: Callable[[], None]
    ) -> None:
        self.folder, self.count, self.threads, self.waits = folder, count, threads, waits
        self.plugins = plugins_by_name(registry)
        self.events: Queue[tuple[Worker, str | None]] = Queue()
        self.workers: list[Worker] = []
        self.heard = 0  # the signal received, or 0

    def run(self, take: Take, told: Told, ended: Ended) -> None:
        """Run all jobs. After a signal, raises Interrupted when every process has ended."""
        try:
            with stop_on_signals(self.stop):
                try:
                    while self._hand_out(take) or self._busy():
                        self._hear(told, ended)
                except Exception:  # such as one of the sweep's record: members are not at fault
                    self.stop(signal.SIGTERM)
                    self._drain(told, ended)
                    raise
        except BaseException:  # also a second signal: do not wait for the workers any longer
            for worker in self.workers:
                worker.process.kill()
            raise
        finally:
            for worker in self.workers:
                worker.close()
        if self.heard:
            kind = Terminated if self.heard == signal.SIGTERM else Interrupted
            raise kind(kind.__name__.lower())

    def stop(self, number: int) -> None:
        """Handle a signal: every training ends at a checkpoint."""
        if self.heard:  # a second SIGTERM would end the workers at once
            return
        self.heard = number
        for worker in self.workers:
            worker.process.terminate()

    def _drain(self, told: Told, ended: Ended) -> None:
        """Record what the stopping workers still report."""
        while self._busy():
            with suppress(Exception):  # only the first error is raised
                self._hear(told, ended)

    def _busy(self) -> bool:
        return any(worker.job for worker in self.workers)

    def _hand_out(self, take: Take) -> bool:
        """Give a job to each idle process. Returns whether any process got one."""
        given = False
        while not self.heard:
            self.workers = [w for w in self.workers if w.job or w.process.poll() is None]
            idle = next((worker for worker in self.workers if not worker.job), None)
            if idle is None and len(self.workers) >= self.count:
                break
            job = take()
            if job is None:
                break
            if idle is None:
                idle = Worker(self.threads, self.events)
                self.workers.append(idle)
            idle.begin(job, {**self.plugins, "sweep": str(self.folder)})
            if self.heard:  # the signal came while this worker started
                idle.process.terminate()
            given = True
        return given

    def _hear(self, told: Told, ended: Ended) -> None:
        try:
            worker, line = self.events.get(timeout=0.2)  # so that a signal is handled soon
        except Empty:
            self.waits()
            return
        if worker.job is None:
            return  # an idle worker has ended
        if line is None:
            self._lost(worker, told, ended)
            return
        said = json.loads(line)
        if said.get("ended"):
            job, worker.job = worker.job, None
            if not self.heard:
                ended(job, said["reason"])
        else:
            worker.open.discard(said["name"])
            told(said["name"], said["status"], said["error"])

    def _lost(self, worker: Worker, told: Told, ended: Ended) -> None:
        """A process ended during a job: its members have failed, or were asked to stop."""
        job, worker.job = worker.job, None
        assert job is not None
        code = worker.process.wait()
        for name in sorted(worker.open):
            if self.heard:
                told(name, "interrupted", "")
            elif code < 0:
                told(name, "killed", f"its process was killed by {signal_name(-code)}")
            else:
                told(name, "failed", f"its process ended with exit code {code}: {worker.last}")
        if not self.heard:
            ended(job, "")


class Worker:
    """A process of `latentforge.sweeps.worker` and its current job."""

    def __init__(self, threads: int, events: Queue[tuple[Worker, str | None]]) -> None:
        self.job: Job | None = None
        self.open: set[str] = set()  # members of the job that have not reported yet
        self.last = ""  # the last line of stderr
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "latentforge.sweeps.worker"],  # -P: see `worker_path`
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": worker_path()},
            start_new_session=True,  # a terminal's Ctrl-C must reach only the parent
        )
        pipes = self.process.stdout, self.process.stderr
        self.readers = [
            threading.Thread(target=self._answers, args=(pipes[0], events), daemon=True),
            threading.Thread(target=self._errors, args=(pipes[1],), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def begin(self, job: Job, request: dict[str, Any]) -> None:
        self.job, self.open = job, {member.name for member in job.members}
        members = [[member.name, dict(member.values)] for member in job.members]
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the process was killed; its reader thread notices
            self.process.stdin.write(json.dumps({**request, "members": members}) + "\n")
            self.process.stdin.flush()

    def _answers(self, pipe: IO[str], events: Queue[tuple[Worker, str | None]]) -> None:
        for line in pipe:
            events.put((self, line))
        self.process.wait()
        self.readers[1].join(timeout=1)  # the last line of stderr is its error
        events.put((self, None))

    def _errors(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.last = line.strip() or self.last
            text = line.rstrip().removeprefix("warning: ")  # it is logged as a warning anyway
            log.warning("%s", f"{self.job.name}: {text}" if self.job else text)

    def close(self) -> None:
        """Let the process end; it has no job or was killed."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        for reader in self.readers:
            reader.join(timeout=1)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def worker_path() -> str:
    """The module path of this process for a worker, including a script's folder. It includes the
    current folder only if it does so here: a json.py beside the data would hide the real one."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def plugins_by_name(registry: Registry) -> dict[str, Any]:
    """How another process loads the same plugins. UsageError for plugins given as objects."""
    selection = registry.selection
    plugins, off, discover = selection.plugins, selection.off, selection.discover
    if handed := [plugin for plugin in plugins if not isinstance(plugin, str)]:
        raise UsageError(
            f"jobs: other processes cannot load plugin {handed[0]!r}, given as a Python object",
            remedy="use Forge(plugins=['./file.py']) or 'package.module', or jobs=1",
        )
    return {"plugins": list(plugins), "off": list(off), "discover": discover}


def check_jobs(registry: Registry, jobs: int, data: Any) -> None:
    """Raise UsageError for an invalid number, and for objects that other processes do not have."""
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, got {jobs}")
    if jobs > 1:
        plugins_by_name(registry)
    if jobs > 1 and data is not None:
        raise UsageError(
            "jobs: other processes do not have data passed in Python",
            remedy="jobs=1, or the data in a file: data={'name': 'arrays', 'path': 'data.npz'}",
        )
