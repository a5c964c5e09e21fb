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
from queue import Empty, Queue
from typing import IO, Any

from latentforge.errors import Interrupted, Terminated, UsageError
from latentforge.plugins.registry import Registry
from latentforge.runtime.signals import stop_on_signals
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.job import Job, StatusCallback

log = logging.getLogger("latentforge")

NextJob = Callable[[], Job | None]
# Receives a completed job, and the reason if its members cannot be trained together, else "".
JobCallback = Callable[[Job, str], None]


class Pool:
    """Runs `size` jobs of a sweep at a time, each in its own process with `threads` threads.

    The lines that the processes write to stderr are logged with the name of the job. `on_idle` is
    called a few times a second while no process sends a message.
    """

    def __init__(self, sweep: Sweep, size: int, threads: int, on_idle: Callable[[], None]) -> None:
        self.size, self.threads, self.on_idle = size, threads, on_idle
        self.request = {**describe_plugins(sweep.registry), "sweep": str(sweep.path)}
        self.events: Queue[tuple[Worker, str | None]] = Queue()
        self.workers: list[Worker] = []
        self.signal_received = 0  # the signal received, or 0

    def run(self, next_job: NextJob, report: StatusCallback, end_job: JobCallback) -> None:
        """Run all jobs. After a signal, raises Interrupted when every process has ended."""
        try:
            with stop_on_signals(self.stop):
                try:
                    while self._hand_out(next_job) or self._busy():
                        self._receive(report, end_job)
                except Exception:  # such as a failure to write sweep.json
                    self.stop(signal.SIGTERM)
                    while self._busy():  # record what the stopping workers still report
                        with suppress(Exception):  # only the first error is raised
                            self._receive(report, end_job)
                    raise
        except BaseException:  # also a second signal: do not wait for the workers any longer
            for worker in self.workers:
                worker.process.kill()
            raise
        finally:
            for worker in self.workers:
                worker.close()
        if self.signal_received:
            kind = Terminated if self.signal_received == signal.SIGTERM else Interrupted
            raise kind(kind.__name__.lower())

    def stop(self, number: int) -> None:
        """Handle a signal: stop every running member at a checkpoint."""
        if self.signal_received:  # a second SIGTERM would end the workers at once
            return
        self.signal_received = number
        for worker in self.workers:
            worker.process.terminate()

    def _busy(self) -> bool:
        return any(worker.job for worker in self.workers)

    def _hand_out(self, next_job: NextJob) -> bool:
        """Give a job to each idle process. Returns whether any process got one."""
        assigned = False
        while not self.signal_received:
            self.workers = [w for w in self.workers if w.job or w.process.poll() is None]
            idle = next((worker for worker in self.workers if not worker.job), None)
            if idle is None and len(self.workers) >= self.size:
                break
            if (job := next_job()) is None:
                break
            if idle is None:
                idle = Worker(self.threads, self.events)
                self.workers.append(idle)
            idle.begin(job, self.request)
            if self.signal_received:  # the signal came while this worker started
                idle.process.terminate()
            assigned = True
        return assigned

    def _receive(self, report: StatusCallback, end_job: JobCallback) -> None:
        try:
            worker, line = self.events.get(timeout=0.2)  # so that a signal is handled soon
        except Empty:
            self.on_idle()
            return
        if worker.job is None:
            return  # an idle worker has ended
        if line is None:
            self._handle_exit(worker, report)
            return
        message = json.loads(line)
        if message.get("ended"):
            job, worker.job = worker.job, None
            if not self.signal_received:
                end_job(job, message["reason"])
        else:
            worker.unreported.discard(message["name"])
            report(message["name"], message["status"], message["error"])

    def _handle_exit(self, worker: Worker, report: StatusCallback) -> None:
        """Report the status of the members that a process had not reported when it ended during a
        job: failed, killed or interrupted."""
        worker.job = None
        code = worker.process.wait()
        for name in sorted(worker.unreported):
            if self.signal_received:
                report(name, "interrupted", "")
            elif code < 0:
                report(name, "killed", f"its process was killed by {signal_name(-code)}")
            else:
                error = f"its process ended with exit code {code}: {worker.last_line}"
                report(name, "failed", error)


class Worker:
    """A process of `latentforge.sweeps.worker` and its current job."""

    def __init__(self, threads: int, events: Queue[tuple[Worker, str | None]]) -> None:
        self.job: Job | None = None
        self.unreported: set[str] = set()  # members of the job that have not reported yet
        self.last_line = ""  # the last line of stderr
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
        pipes = (self.process.stdin, self.process.stdout, self.process.stderr)
        stdin, stdout, stderr = pipes
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self.stdin, self.outputs = stdin, (stdout, stderr)
        self.readers = [
            threading.Thread(target=self._read_messages, args=(stdout, events), daemon=True),
            threading.Thread(target=self._read_stderr, args=(stderr,), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def begin(self, job: Job, request: dict[str, Any]) -> None:
        self.job, self.unreported = job, {member.name for member in job.members}
        members = [[member.name, dict(member.values)] for member in job.members]
        with suppress(BrokenPipeError):  # the process was killed; its reader thread notices
            self.stdin.write(json.dumps({**request, "members": members}) + "\n")
            self.stdin.flush()

    def _read_messages(self, pipe: IO[str], events: Queue[tuple[Worker, str | None]]) -> None:
        for line in pipe:
            events.put((self, line))
        self.process.wait()
        self.readers[1].join(timeout=1)  # the last line of stderr is its error
        events.put((self, None))

    def _read_stderr(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.last_line = line.strip() or self.last_line
            text = line.rstrip().removeprefix("warning: ")  # it is logged as a warning anyway
            log.warning("%s", f"{self.job.name}: {text}" if self.job else text)

    def close(self) -> None:
        """Close the pipes and wait for the process, which has no job or was killed."""
        with suppress(BrokenPipeError):
            self.stdin.close()
        self.process.wait()
        for reader in self.readers:
            reader.join(timeout=1)
        for pipe in self.outputs:
            pipe.close()


def worker_path() -> str:
    """Return PYTHONPATH for a worker: the module path of this process, including a script's folder.
    The current folder is added only if it is in that path, because a json.py in it would hide the
    standard module."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def describe_plugins(registry: Registry) -> dict[str, Any]:
    """Describe the plugins for another process to load. Raises UsageError for a plugin that was
    given as a Python object."""
    selection = registry.selection
    plugins, off, discover = selection.plugins, selection.off, selection.discover
    if objects := [plugin for plugin in plugins if not isinstance(plugin, str)]:
        raise UsageError(
            f"jobs: other processes cannot load the Python object {objects[0]!r} as a plugin",
            hint="use Forge(plugins=['./file.py']) or 'package.module', or jobs=1",
        )
    return {"plugins": list(plugins), "off": list(off), "discover": discover}


def check_jobs(registry: Registry, jobs: int, data: Any) -> None:
    """Raise UsageError if `jobs` is invalid, or if other processes cannot load the plugins or
    data."""
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, got {jobs}")
    if jobs > 1:
        describe_plugins(registry)
    if jobs > 1 and data is not None:
        raise UsageError(
            f"jobs={jobs}: other processes do not have the data passed in Python",
            hint="jobs=1, or store the data in a file: data={'name': 'arrays', 'path': 'data.npz'}",
        )
