"""Runs the members of a sweep and updates its record. A failed member does not stop the others."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from latentforge.config.schema import RunConfig
from latentforge.errors import Interrupted, LatentForgeError, RunFailed
from latentforge.io.atomic import count_lines
from latentforge.io.text import are, counted
from latentforge.runs.folder import MANIFEST, METRICS, open_folder
from latentforge.runs.manifest import now
from latentforge.runtime.stdout import escape_controls
from latentforge.sweeps.comparison import write_sweep_report
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.grid import Member
from latentforge.sweeps.grouping import group_members
from latentforge.sweeps.job import Job, run_job
from latentforge.sweeps.process_pool import Pool

log = logging.getLogger("latentforge")

MAX_SHOWN = 4  # maximum number of members in other processes whose progress is printed
PROGRESS_INTERVAL = 30.0  # seconds without output after which progress is printed


class Sweeper:
    """Trains the members of the locked `sweep` and updates its record."""

    def __init__(self, sweep: Sweep, data: Any, *, jobs: int, quiet: bool) -> None:
        self.sweep, self.data, self.jobs, self.quiet = sweep, data, jobs, quiet
        self.configs: dict[str, RunConfig] = {}  # by member name
        self.queue: deque[Job] = deque()
        self.last_output = time.monotonic()

    def run(self, members: Sequence[Member] = (), configs: Sequence[RunConfig] = ()) -> None:
        """Train `members` and the queued ones. After a signal, saves and records the progress, then
        raises Interrupted."""
        todo = list(zip(members, configs, strict=True))
        self.sweep.write(status="running")
        try:
            self.configs |= {member.name: config for member, config in todo}
            self.queue.extend(self.plan_jobs(todo))
            if self.jobs > 1:
                self.print_line(f"{counted(self.count_members(), 'member')}, {self.jobs} at a time")
                threads = max(1, torch.get_num_threads() // self.jobs)
                pool = Pool(self.sweep, self.jobs, threads, self.print_progress)
                pool.run(self.next_job, self.record_status, self.handle_end)
            else:
                self.run_in_process()
        except (KeyboardInterrupt, Interrupted) as stop:
            self.mark_interrupted()
            raise self.create_error(stop) from None
        except BaseException:  # an error of the sweep folder, or a bug in LatentForge
            with suppress(RunFailed):
                self.mark_interrupted()
            raise
        self.sweep.write(status="failed" if self.sweep.failed else "done", ended=now())
        self.report()

    def mark_interrupted(self) -> None:
        """Mark the sweep and its running members as interrupted, after training has stopped."""
        for member in self.sweep.members:
            if member["status"] == "running":
                member["status"] = "interrupted"
        self.sweep.write(status="interrupted", ended=now())

    def run_in_process(self) -> None:
        """Run one job after the other in this process. Raises Interrupted after a signal."""
        registry, folder = self.sweep.registry, self.sweep.path
        options: dict[str, Any] = {"quiet": self.quiet, "data": self.data}
        while job := self.next_job():
            configs = [self.configs[member.name] for member in job.members]
            reason = run_job(registry, folder, job, configs, self.record_status, **options)
            self.handle_end(job, reason)

    def plan_jobs(self, todo: Sequence[tuple[Member, RunConfig]]) -> list[Job]:
        """Plan one job for each group that may be trained together, and one for each other
        member."""
        if not self.sweep.record["together"]:
            return [Job((member,)) for member, _ in todo]
        separate = {
            member.name: "members that have started are resumed one by one"
            for member, _ in todo
            if (self.sweep.path / member.name / MANIFEST).exists()
        }
        new = [(member, config) for member, config in todo if member.name not in separate]
        groups, reasons = group_members([config for _, config in new])
        separate |= {new[index][0].name: reason for index, reason in reasons.items()}
        distinct = sorted(set(separate.values()))
        for reason in distinct:  # one write per reason: the file may have thousands of members
            names = [name for name, given in separate.items() if given == reason]
            self.sweep.note(*names, alone_because=reason)
        if distinct:
            reason = "; ".join(distinct)
            self.print_line(describe_separate(len(separate), reason))
        jobs = [Job(tuple(new[index][0] for index in group)) for group in groups]
        return [*jobs, *(Job((member,)) for member, _ in todo if member.name in separate)]

    def next_job(self) -> Job | None:
        """Return the next job and mark its members as running. Returns None if no job is left."""
        if not self.queue:
            return None
        job = self.queue.popleft()
        names = [member.name for member in job.members]
        if len(names) > 1:
            self.print_line(f"{len(names)} members, together if possible: {', '.join(names)}")
        elif self.jobs == 1 and not self.quiet:  # count_remaining() of a search queries its storage
            self.print_line(f"{names[0]}, {self.count_remaining() + 1} left")
        self.sweep.note(*names, status="running", error="")
        return job

    def count_remaining(self) -> int:
        """The number of jobs that have not started."""
        return len(self.queue)

    def count_members(self) -> int:
        """The number of members, including those that a search has not created yet."""
        return len(self.sweep.members)

    def record_status(self, name: str, status: str, error: str) -> None:
        path = self.sweep.path / name
        facts: dict[str, Any] = {"status": status, "error": error}
        if status == "done":
            facts["metrics"] = open_folder(path).metrics
        self.sweep.note(name, **facts)
        if error:
            log.warning("%s failed: %s", name, error.splitlines()[0])
        elif self.jobs > 1:
            ended = sum(m["status"] in ("done", "failed", "killed") for m in self.sweep.members)
            total = self.count_members()
            self.print_line(f"{name}: {status}; {ended} of {counted(total, 'member')} ended")

    def print_progress(self) -> None:
        """Print the progress of members in other processes after a long time without output."""
        if self.quiet or time.monotonic() - self.last_output < PROGRESS_INTERVAL:
            return
        running = [m["name"] for m in self.sweep.members if m["status"] == "running"]
        lines = []
        for name in running[:MAX_SHOWN]:
            epoch = count_lines(self.sweep.path / name / METRICS)
            lines.append(f"{name}: epoch {epoch} of {self.configs[name].train.epochs}")
        hidden = len(running) - len(lines)
        self.print_line("; ".join([*lines, f"{hidden} more"] if hidden else lines))

    def handle_end(self, job: Job, reason: str) -> None:
        """Queue the job's members one by one if they cannot be trained together."""
        if reason:
            names = [member.name for member in job.members]
            self.sweep.note(*names, status="waiting", alone_because=reason)
            self.print_line(describe_separate(len(job.members), reason))
            self.queue.extend(Job((member,)) for member in job.members)

    def create_error(self, stop: BaseException) -> Interrupted:
        kind = type(stop) if isinstance(stop, Interrupted) else Interrupted
        done = sum(member["status"] == "done" for member in self.sweep.members)
        members = counted(self.count_members(), "member")
        error = kind(
            f"{kind.__name__.lower()} with {done} of {members} done",
            hint=self.sweep.resume_command,
        )
        error.result = self.sweep.summary()
        return error

    def report(self) -> None:
        """Write the report of all finished members. An error is logged, not raised."""
        if not any(member["status"] == "done" for member in self.sweep.members):
            return
        try:
            self.sweep.write(report=write_sweep_report(self.sweep)["report"])
        except LatentForgeError as error:
            log.warning("the report of the sweep was not written: %s", error.message)

    def print_line(self, text: str) -> None:
        self.last_output = time.monotonic()
        if not self.quiet:
            sys.stderr.write(f"{escape_controls(text)}\n")
            sys.stderr.flush()


def describe_separate(members: int, reason: str) -> str:
    return f"{counted(members, 'member')} {are(members)} trained separately: {reason}"
