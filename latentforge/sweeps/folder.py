"""The sweep folder: sweep.json, and a run folder for each member. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentforge.config.request import SECTIONS, Draft
from latentforge.errors import MissingError, RunFailed, UsageError, similar_paths
from latentforge.io.atomic import read_json
from latentforge.io.paths import create_folder, quoted, write_json
from latentforge.io.text import counted
from latentforge.plugins.registry import Registry
from latentforge.runs.folder import MANIFEST
from latentforge.runs.manifest import RUNS
from latentforge.runtime.python_form import python_form
from latentforge.sweeps.record import FORMAT, is_valid_record, objective_value, resume_command
from latentforge.workflows.run import Run, open_run

RECORD = "sweep.json"


class Sweep:
    """A group of runs that differ in a few values, each with its own ordinary run folder.
    `Forge.sweep` returns it.

    `record` is the content of sweep.json. `members` contains the record of each member: name,
    values, status, error, and metrics by split. `search` contains a search's number of trials,
    space, objective and study; it is empty for a grid.
    """

    def __init__(self, path: Path, record: dict[str, Any], registry: Registry) -> None:
        self.path = path
        self.record = record
        self.registry = registry
        self.members: list[dict[str, Any]] = record["members"]
        self.search: dict[str, Any] = record.get("search", {})

    def __repr__(self) -> str:
        return f"Sweep({str(self.path)!r}, {counted(len(self.members), 'member')}, {self.status})"

    @property
    def status(self) -> str:
        """One of running, done, failed (a member failed) and interrupted."""
        return str(self.record["status"])

    @property
    def failed(self) -> dict[str, str]:
        """The error of each member that failed or whose process was killed, by member name."""
        failed = [m for m in self.members if m["status"] in ("failed", "killed")]
        return {member["name"]: python_form(member["error"]) for member in failed}

    def runs(self) -> list[Run]:
        """The runs of the members that have started, in the order of the members."""
        paths = [self.path / member["name"] for member in self.members]
        return [open_run(self.registry, path) for path in paths if (path / MANIFEST).exists()]

    def summary(self) -> dict[str, Any]:
        """The result of the sweep, as `latentforge sweep --json` prints it."""
        varied = ("search", "best", "best_of_all") if self.search else ("grid",)
        record = {"best_of_all": {}, **self.record, "sweep": str(self.path), "best": self.best}
        return {key: record[key] for key in ("sweep", "status", *varied, "members", "report")}

    @property
    def keys(self) -> list[str]:
        """The configuration keys in which the members differ."""
        return list(self.search["space"] if self.search else self.record["grid"])

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The members of a search, best first; members without an objective value come last."""

        def rank(member: Mapping[str, Any]) -> tuple[bool, float]:
            value = objective_value(self.search, member)
            sign = 1.0 if self.search["better"] == "lower" else -1.0
            return value is None, sign * (value or 0.0)

        return sorted(self.members, key=rank)

    @property
    def best(self) -> str:
        """The best member's name; empty for a grid, or if no member has an objective value."""
        if not self.search or not self.members:
            return ""
        first = self.ranked[0]
        return "" if objective_value(self.search, first) is None else str(first["name"])

    @property
    def resume_command(self) -> str:
        """The command that resumes the sweep."""
        return resume_command(self.path, self.search)

    def draft(self) -> Draft:
        """The request that all members have in common."""
        base, draft = self.record["base"], Draft()
        for section in SECTIONS:
            draft.update(section, base.get(section, {}), RECORD)
        draft.callbacks = [dict(callback) for callback in base["callbacks"]]
        return draft

    def note(self, *names: str, **facts: Any) -> None:
        """Update the records of the named members, and write sweep.json once for all of them."""
        selected = set(names)
        for member in self.members:
            if member["name"] in selected:
                member.update(facts)
        self.write()

    def write(self, **changes: Any) -> None:
        """Change the record and write it atomically."""
        self.record.update(changes)
        write_json(self.path / RECORD, self.record)


def create_sweep(registry: Registry, out: Path | None, name: str, record: dict[str, Any]) -> Sweep:
    """Create a sweep folder and write its sweep.json. The folder is `out`, which must be empty or
    missing, or, if this is None, the first free `runs/name-N`."""

    def check(path: Path) -> None:
        if is_sweep(path):
            raise UsageError(
                f"{path} already contains a sweep",
                hint=f"latentforge sweep --resume {quoted(path)}, or choose another --out",
            )

    sweep = Sweep(create_folder(out, RUNS, name, check), record, registry)
    try:
        sweep.write()
    except RunFailed:
        with suppress(OSError):
            sweep.path.rmdir()  # without a sweep.json the folder is useless
        raise
    return sweep


def is_sweep(path: Path) -> bool:
    """Whether a folder is a sweep folder rather than a run folder."""
    return (path / RECORD).exists()


def check_is_run(path: Path) -> None:
    """Raise UsageError for a folder to resume that is a sweep instead of a run."""
    if is_sweep(path):
        hint = f"latentforge sweep --resume {quoted(path)}"
        raise UsageError(f"{path} is a sweep, not a run", hint=hint)


def missing_sweep(path: Path) -> MissingError:
    """Return the error about a path that is no sweep folder, with the sweeps that it can mean."""
    if (path / MANIFEST).is_file():
        hint = f"latentforge train --resume {quoted(path)}"
        return MissingError(f"{path} is a run, not a sweep", hint=hint)
    sweeps = [file.parent for file in sorted(path.parent.glob(f"*/{RECORD}"))]
    others = f"one of the sweeps there: {', '.join(map(str, sweeps))}"
    hint = similar_paths(path, sweeps) or others
    if not sweeps:
        hint = "`latentforge sweep beta-vae --grid 'loss.beta=[1, 4]'` starts one"
    return MissingError(f"no sweep at {path}", hint=hint)


def open_sweep(registry: Registry, path: Path) -> Sweep:
    """Open a sweep folder. Raises MissingError if it contains no valid sweep.json."""
    file = path / RECORD
    try:
        record = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        raise missing_sweep(path) from None
    except (OSError, ValueError) as error:
        raise MissingError(f"{file} cannot be read as a sweep: {error}") from None
    if not is_valid_record(record):
        raise MissingError(f"{file} is not a valid sweep record of format {FORMAT}")
    return Sweep(path, record, registry)
