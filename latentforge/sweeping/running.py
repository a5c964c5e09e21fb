"""The training of a sweep's members, one after the other; one that fails stops no other."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge import __version__
from latentforge.config import RunConfig
from latentforge.drafting import Draft
from latentforge.errors import Interrupted, LatentForgeError, RunFailed, UsageError, one_line
from latentforge.run import MANIFEST, Run, locked, status_of
from latentforge.sweeping.folder import (
    FORMAT,
    RECORD,
    Sweep,
    new_folder,
    open_sweep,
    plain_base,
)
from latentforge.sweeping.grouping import groups_of
from latentforge.sweeping.plan import Member, members_of, resolve_all
from latentforge.training import RUNS, now, train

if TYPE_CHECKING:
    from latentforge.forge import Forge

log = logging.getLogger("latentforge")


def start(
    forge: Forge,
    draft: Draft,
    grid: Mapping[str, Sequence[Any]],
    out: Path | None,
    *,
    together: bool,
    quiet: bool,
    data: Any,
) -> Sweep:
    """Train a new sweep. What is wrong with any member's request is found before the first one."""
    members = members_of(grid)
    configs = resolve_all(draft, members, forge.registry, in_memory=data is not None)
    first = configs[0]
    folder = new_folder(out, RUNS, f"sweep-{first.model.name}-{first.data_name}")
    record = {
        "format": FORMAT,
        "latentforge": __version__,
        "status": "running",
        "created": now(),
        "command": sys.argv[1:],
        "grid": {key: list(values) for key, values in grid.items()},
        "base": plain_base(draft),
        "in_memory": data is not None,
        "together": together,
        "report": "",
        "members": [
            {
                "name": member.name,
                "values": dict(member.values),
                "status": "waiting",
                "error": "",
                "metrics": {},
                "alone_because": "",
            }
            for member in members
        ],
    }
    sweep = Sweep(folder, record, forge)
    try:
        sweep.write()
    except RunFailed:
        with suppress(OSError):
            folder.rmdir()  # no sweep, no folder
        raise
    with locked(folder):
        Sweeper(sweep, data, quiet=quiet).run(list(zip(members, configs, strict=True)))
    return sweep


def resume(forge: Forge, path: Path, *, retry: bool, quiet: bool, data: Any) -> Sweep:
    """Go on with a sweep in its own folder."""
    open_sweep(forge, path)  # before a lock is made in a folder that is none of ours
    with locked(path):
        sweep = open_sweep(forge, path)  # as whoever trained last has left it
        for left in path.glob(f".{RECORD}.*"):  # half written, by who was killed
            left.unlink(missing_ok=True)
        draft = sweep.draft()
        data = draft.data(data)
        if sweep.record["in_memory"] != (data is not None):
            raise UsageError(
                f"{path} was trained on {'' if sweep.record['in_memory'] else 'no '}data that "
                "Python handed over",
                remedy="Forge().resume_sweep(path, data=...) with what it was trained on",
            )
        wanted = [member for member in sweep.plan() if open_end(sweep, member, retry=retry)]
        configs = resolve_all(draft, wanted, forge.registry, in_memory=data is not None)
        Sweeper(sweep, data, quiet=quiet).run(list(zip(wanted, configs, strict=True)))
    return sweep


def open_end(sweep: Sweep, member: Member, *, retry: bool) -> bool:
    """Whether a member is to be trained, or on; its run folder knows better than sweep.json."""
    path = sweep.path / member.name
    said = next(told for told in sweep.members if told["name"] == member.name)
    if (path / MANIFEST).exists():
        run = sweep.forge.open_run(path)
        status = status_of(path, run.manifest)
        said.update(status=status, metrics=run.metrics, error=run.manifest.get("error", ""))
    return said["status"] != "done" and (retry or said["status"] != "failed")


class Sweeper:
    """Trains members of `sweep`, which is locked, and keeps its record."""

    def __init__(self, sweep: Sweep, data: Any, *, quiet: bool) -> None:
        self.sweep, self.data, self.quiet = sweep, data, quiet

    def run(self, todo: Sequence[tuple[Member, RunConfig]]) -> None:
        """Train them all. Raises Interrupted, when what was reached is kept and recorded."""
        self.sweep.write(status="running")
        try:
            alone = self.train_groups(todo)
            for number, (member, config) in enumerate(alone, 1):
                self.say(f"{member.name}, {number} of {len(alone)}")
                self.train(member, config)
        except (KeyboardInterrupt, Interrupted) as stop:
            self.sweep.write(status="interrupted", ended=now())
            raise self.interrupted(stop) from None
        except BaseException:  # of the sweep's own folder, or a fault of ours
            with suppress(RunFailed):
                self.sweep.write(status="interrupted", ended=now())
            raise
        self.sweep.write(status="failed" if self.sweep.failed else "done", ended=now())
        self.report()

    def train_groups(
        self, todo: Sequence[tuple[Member, RunConfig]]
    ) -> Sequence[tuple[Member, RunConfig]]:
        """Train together those that can be; the others are returned."""
        if not self.sweep.record["together"]:
            return todo
        begun = [(self.sweep.path / member.name / MANIFEST).exists() for member, _ in todo]
        fresh = [place for place, there in enumerate(begun) if not there]
        groups, reasons = groups_of([todo[place][1] for place in fresh])
        why = {fresh[place]: reason for place, reason in reasons.items()}
        why |= {place: "it goes on by itself" for place, there in enumerate(begun) if there}
        for group in groups:
            places = [fresh[place] for place in group]
            if reason := self.train_group([todo[place] for place in places]):
                why |= dict.fromkeys(places, reason)
        for place, reason in why.items():
            self.sweep.note(todo[place][0].name, alone_because=reason)
        if told := sorted(set(why.values())):
            self.say(f"one by one, {len(why)} members: {'; '.join(told)}")
        return [todo[place] for place in sorted(why)]

    def train_group(self, group: Sequence[tuple[Member, RunConfig]]) -> str:
        """Train members together; why that cannot be, where it cannot, with none begun."""
        from latentforge.sweeping.together import Together

        names = [member.name for member, _ in group]

        def told(place: int, run: Run | None, error: BaseException | None) -> None:
            if isinstance(error, Interrupted):
                self.sweep.note(names[place], status="interrupted")
            elif error is not None:
                self.failed(names[place], error)
            elif run is not None:
                self.sweep.note(names[place], status="done", metrics=run.metrics)

        self.say(f"{len(group)} members, together if they can be: {', '.join(names)}")
        paths = [self.sweep.path / name for name in names]
        configs = [config for _, config in group]
        making = Together(self.sweep.forge, paths, configs, told, quiet=self.quiet, data=self.data)
        return making.train()

    def train(self, member: Member, config: RunConfig) -> None:
        """Train a member, or go on with it; its failure is recorded and raised no further."""
        forge, path = self.sweep.forge, self.sweep.path / member.name
        self.sweep.note(member.name, status="running", error="")
        try:
            if (path / MANIFEST).exists():
                run = forge.open_run(path)
                run = forge.resume(run, data=self.data, quiet=self.quiet)
            else:
                run = train(forge, config, run=path, quiet=self.quiet, data=self.data)
        except (KeyboardInterrupt, Interrupted):
            self.sweep.note(member.name, status="interrupted")
            raise
        except Exception as error:
            self.failed(member.name, error)
        else:
            self.sweep.note(member.name, status="done", metrics=run.metrics)

    def failed(self, name: str, error: BaseException) -> None:
        told = str(error) if isinstance(error, LatentForgeError) else one_line(error)
        self.sweep.note(name, status="failed", error=told)
        log.warning("%s failed: %s", name, told.splitlines()[0])

    def interrupted(self, stop: BaseException) -> Interrupted:
        kind = type(stop) if isinstance(stop, Interrupted) else Interrupted
        done = sum(member["status"] == "done" for member in self.sweep.members)
        error = kind(
            f"{kind.__name__.lower()} with {done} of {len(self.sweep.members)} members done",
            remedy=f"latentforge sweep --resume {self.sweep.path}",
        )
        error.result = self.sweep.summary()
        return error

    def report(self) -> None:
        """One page of all members that are done; a fault of it is said, and is none of theirs."""
        done = {m["name"] for m in self.sweep.members if m["status"] == "done"}
        runs = [run for run in self.sweep.runs() if run.name in done]
        if not runs:
            return
        try:
            made = self.sweep.forge.report(*runs, out=self.sweep.path / "report.html")
            self.sweep.write(report=made["report"])
        except LatentForgeError as error:
            log.warning("no report of the sweep: %s", error.message)

    def say(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
