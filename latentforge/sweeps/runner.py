"""Runs the members of a sweep, and keeps its record; a member that fails stops no other."""

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

SHOWN = 4  # of the members in other processes, how many it is said of how far they are
SILENCE = 30.0  # seconds after which that is said


class Sweeper:
    """Trains members of `sweep`, which is locked, and keeps its record."""

    def __init__(self, sweep: Sweep, data: Any, *, jobs: int, quiet: bool) -> None:
        self.sweep, self.data, self.jobs, self.quiet = sweep, data, jobs, quiet
        self.configs: dict[str, RunConfig] = {}  # of members, by name
        self.queue: deque[Job] = deque()
        self.spoke = time.monotonic()

    def run(self, todo: Sequence[tuple[Member, RunConfig]]) -> None:
        """Train them all, and what is queued already. Raises Interrupted, when what was reached is
        kept and recorded."""
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
        except BaseException:  # of the sweep's own folder, or a fault of ours
            with suppress(RunFailed):
                self.at_rest()
            raise
        self.sweep.write(status="failed" if self.sweep.failed else "done", ended=now())
        self.report()

    def at_rest(self) -> None:
        """Nobody trains any more, and of some members nobody has said how they ended."""
        for member in self.sweep.members:
            if member["status"] == "running":
                member["status"] = "interrupted"
        self.sweep.write(status="interrupted", ended=now())

    def run_here(self) -> None:
        """Do one job after the other in this process; raises Interrupted after a signal."""
        registry, folder = self.sweep.registry, self.sweep.path
        how: dict[str, Any] = {"quiet": self.quiet, "data": self.data}
        while job := self.take():
            configs = [self.configs[member.name] for member in job.members]
            self.ended(job, do_job(registry, folder, job, configs, self.told, **how))

    def planned(self, todo: Sequence[tuple[Member, RunConfig]]) -> list[Job]:
        """A job for each group that may be trained together, and for each other member."""
        if not self.sweep.record["together"]:
            return [Job((member,)) for member, _ in todo]
        begun = [(self.sweep.path / member.name / MANIFEST).exists() for member, _ in todo]
        fresh = [place for place, there in enumerate(begun) if not there]
        groups, reasons = groups_of([todo[place][1] for place in fresh])
        jobs = [Job(tuple(todo[fresh[place]][0] for place in group)) for group in groups]
        alone = {fresh[place]: reason for place, reason in reasons.items()}
        alone |= {place: "it goes on by itself" for place, there in enumerate(begun) if there}
        singles = [Job((todo[place][0],)) for place in sorted(alone)]
        why = sorted(set(alone.values()))
        for reason in why:  # a file of thousands of members is not written for each of them
            names = [todo[place][0].name for place in alone if alone[place] == reason]
            self.sweep.note(*names, alone_because=reason)
        if why:
            self.say(f"one by one, {len(alone)} members: {'; '.join(why)}")
        return [*jobs, *singles]

    def take(self) -> Job | None:
        """The next job, which begins now."""
        if not self.queue:
            return None
        job = self.queue.popleft()
        names = [member.name for member in job.members]
        if len(names) > 1:
            self.say(f"{len(names)} members, together if they can be: {', '.join(names)}")
        elif self.jobs == 1 and not self.quiet:  # a search asks its storage how many
            self.say(f"{names[0]}, {self.left() + 1} to go")
        self.sweep.note(*names, status="running", error="")
        return job

    def left(self) -> int:
        """How many jobs have not begun."""
        return len(self.queue)

    def total(self) -> int:
        """How many members there are, or will be."""
        return len(self.sweep.members)

    def told(self, name: str, status: str, error: str) -> None:
        """Note how a member stands."""
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
        """Say how far those are that other processes train, where nothing was said for long."""
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
        """Let members that cannot be trained together be trained one by one."""
        if reason:
            names = [member.name for member in job.members]
            self.sweep.note(*names, status="waiting", alone_because=reason)
            self.say(f"one by one, {len(job.members)} members: {reason}")
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
        """One page of all members that are done; a fault of it is said, and is none of theirs."""
        if not any(member["status"] == "done" for member in self.sweep.members):
            return
        try:
            made = report_of_sweep(self.sweep)
            self.sweep.write(report=made["report"])
        except LatentForgeError as error:
            log.warning("no report of the sweep: %s", error.message)

    def say(self, text: str) -> None:
        self.spoke = time.monotonic()
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
