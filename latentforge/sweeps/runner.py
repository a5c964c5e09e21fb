"""Runs the members of a sweep and updates its record. A failed member stops no other member."""

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
from latentforge.io.atomic import read_lines
from latentforge.runs.folder import MANIFEST, METRICS, open_folder
from latentforge.runs.manifest import now
from latentforge.sweeps.comparison import report_of_sweep
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.grid import Member
from latentforge.sweeps.grouping import groups_of
from latentforge.sweeps.job import Job, do_job
from latentforge.sweeps.process_pool import Pool

log = logging.getLogger("latentforge")

SHOWN = 4  # for how many members in other processes the progress is printed
SILENCE = 30.0  # seconds without output after which it is printed


class Sweeper:
    """Trains the members of the locked `sweep` and updates its record."""

    def __init__(self, sweep: Sweep, data: Any, *, jobs: int, quiet: bool) -> None:
        self.sweep, self.data, self.jobs, self.quiet = sweep, data, jobs, quiet
        self.configs: dict[str, RunConfig] = {}  # by member name
        self.queue: deque[Job] = deque()
        self.spoke = time.monotonic()

    def run(self, todo: Sequence[tuple[Member, RunConfig]]) -> None:
        """Train all members of `todo` and those already queued. After a signal, raises Interrupted
        when the progress is saved and recorded."""
        self.sweep.write(status="running")
        try:
            self.configs |= {member.name: config for member, config in todo}
            self.queue.extend(self.planned(todo))
            if self.jobs > 1:
                self.say(f"{self.total()} members, {self.jobs} at a time")
                threads = max(1, torch.get_num_threads() // self.jobs)
                pool = Pool(self.sweep.registry, self.sweep.path, self.jobs, threads, self.wait)
                pool.run(self.take, self.told, self.ended)
            else:
                self.run_here()
        except (KeyboardInterrupt, Interrupted) as stop:
            self.at_rest()
            raise self.interrupted(stop) from None
        except BaseException:  # the sweep's folder fails, or LatentForge has a bug
            with suppress(RunFailed):
                self.at_rest()
            raise
        self.sweep.write(status="failed" if self.sweep.failed else "done", ended=now())
        self.report()

    def at_rest(self) -> None:
        """Mark the sweep and its running members as interrupted; none is trained any more."""
        for member in self.sweep.members:
            if member["status"] == "running":
                member["status"] = "interrupted"
        self.sweep.write(status="interrupted", ended=now())

    def run_here(self) -> None:
        """Run one job after the other in this process. Raises Interrupted after a signal."""
        registry, folder = self.sweep.registry, self.sweep.path
        how: dict[str, Any] = {"quiet": self.quiet, "data": self.data}
        while job := self.take():
            configs = [self.configs[member.name] for member in job.members]
            self.ended(job, do_job(registry, folder, job, configs, self.told, **how))

    def planned(self, todo: Sequence[tuple[Member, RunConfig]]) -> list[Job]:
        """One job for each group that may be trained together, and one for each other member."""
        if not self.sweep.record["together"]:
            return [Job((member,)) for member, _ in todo]
        begun = [(self.sweep.path / member.name / MANIFEST).exists() for member, _ in todo]
        fresh = [place for place, there in enumerate(begun) if not there]
        groups, reasons = groups_of([todo[place][1] for place in fresh])
        jobs = [Job(tuple(todo[fresh[place]][0] for place in group)) for group in groups]
        alone = {fresh[place]: reason for place, reason in reasons.items()}
        alone |= {place: "it is resumed on its own" for place, there in enumerate(begun) if there}
        singles = [Job((todo[place][0],)) for place in sorted(alone)]
        why = sorted(set(alone.values()))
        for reason in why:  # one write per reason: the file may have thousands of members
            names = [todo[place][0].name for place in alone if alone[place] == reason]
            self.sweep.note(*names, alone_because=reason)
        if why:
            self.say(f"{len(alone)} members are trained separately: {'; '.join(why)}")
        return [*jobs, *singles]

    def take(self) -> Job | None:
        """The next job, marked as running; None if there is none."""
        if not self.queue:
            return None
        job = self.queue.popleft()
        names = [member.name for member in job.members]
        if len(names) > 1:
            self.say(f"{len(names)} members, together if possible: {', '.join(names)}")
        elif self.jobs == 1 and not self.quiet:  # left() of a search asks its storage
            self.say(f"{names[0]}, {self.left() + 1} left")
        self.sweep.note(*names, status="running", error="")
        return job

    def left(self) -> int:
        """The number of jobs that have not started."""
        return len(self.queue)

    def total(self) -> int:
        """The number of members, including those that a search has not created yet."""
        return len(self.sweep.members)

    def told(self, name: str, status: str, error: str) -> None:
        """Record a member's status and error."""
        path = self.sweep.path / name
        facts: dict[str, Any] = {"status": status, "error": error}
        if status == "done":
            facts["metrics"] = open_folder(path).metrics
        self.sweep.note(name, **facts)
        if error:
            log.warning("%s failed: %s", name, error.splitlines()[0])
        elif self.jobs > 1:
            over = sum(m["status"] in ("done", "failed", "killed") for m in self.sweep.members)
            self.say(f"{name}: {status}; {over} of {self.total()} members have ended")

    def wait(self) -> None:
        """Print the progress of members in other processes after a long time without output."""
        if self.quiet or time.monotonic() - self.spoke < SILENCE:
            return
        running = [m["name"] for m in self.sweep.members if m["status"] == "running"]
        said = []
        for name in running[:SHOWN]:
            epoch = len(read_lines(self.sweep.path / name / METRICS))
            said.append(f"{name}: epoch {epoch} of {self.configs[name].train.epochs}")
        more = len(running) - len(said)
        self.say("; ".join([*said, f"{more} more"] if more else said))

    def ended(self, job: Job, reason: str) -> None:
        """Queue members one by one if they cannot be trained together."""
        if reason:
            names = [member.name for member in job.members]
            self.sweep.note(*names, status="waiting", alone_because=reason)
            self.say(f"{len(job.members)} members are trained separately: {reason}")
            self.queue.extend(Job((member,)) for member in job.members)

    def interrupted(self, stop: BaseException) -> Interrupted:
        kind = type(stop) if isinstance(stop, Interrupted) else Interrupted
        done = sum(member["status"] == "done" for member in self.sweep.members)
        error = kind(
            f"{kind.__name__.lower()} with {done} of {self.total()} members done",
            remedy=self.sweep.again,
        )
        error.result = self.sweep.summary()
        return error

    def report(self) -> None:
        """Write one page of all finished members; an error is logged and fails no member."""
        if not any(member["status"] == "done" for member in self.sweep.members):
            return
        try:
            made = report_of_sweep(self.sweep)
            self.sweep.write(report=made["report"])
        except LatentForgeError as error:
            log.warning("the report of the sweep was not written: %s", error.message)

    def say(self, text: str) -> None:
        self.spoke = time.monotonic()
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
