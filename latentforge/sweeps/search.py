"""Runs an Optuna search: each member follows from the results before it."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from latentforge.config.changes import FREE, flat
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.config.schema import RunConfig
from latentforge.data.loading import load_splits
from latentforge.errors import LatentForgeError, UsageError
from latentforge.io.redact import masked
from latentforge.plugins.registry import Registry
from latentforge.runs.folder import locked
from latentforge.runs.manifest import RUNS, now
from latentforge.sweeps.folder import Sweep, create_sweep_folder, write_first
from latentforge.sweeps.grid import Member, changes_of_loss, check_alone, draft_member
from latentforge.sweeps.job import Job
from latentforge.sweeps.objective import check_objective, figure_of
from latentforge.sweeps.optuna_study import Study, check_optuna, rooted
from latentforge.sweeps.process_pool import check_jobs
from latentforge.sweeps.record import (
    as_json,
    draft_as_json,
    first_record,
    member_record,
    path_keys,
    rooted_draft,
    trial_name,
)
from latentforge.sweeps.runner import Sweeper, start
from latentforge.sweeps.search_space import Space, check_kind, check_space, read_space

log = logging.getLogger("latentforge")
ELSEWHERE = FREE | {"train.device"}  # how and where something is trained, and not what


def start_sweep(
    registry: Registry,
    draft: Draft,
    grid: Mapping[str, Sequence[Any]],
    *,
    search: int | None = None,
    space: Mapping[str, str | Sequence[Any]] | None = None,
    objective: str | None = None,
    storage: str | None = None,
    together: bool = True,
    jobs: int = 1,
    out: str | Path | None = None,
    quiet: bool = False,
    data: Any = None,
) -> Sweep:
    """Train what a draft and a grid or a space describe; `data` is in-memory data or None."""
    check_alone()
    check_kind(grid, search, space=space, objective=objective, storage=storage)
    draft, grid, space = draft_as_json(draft), as_json(grid), as_json(space or {})
    folder = Path(out) if out else None
    how: dict[str, Any] = {"jobs": jobs, "quiet": quiet, "data": data}
    if search is None:
        return start(registry, draft, grid, folder, together=together, **how)
    how |= {"objective": objective, "storage": storage}
    return start_search(registry, draft, search, space, folder, **how)


def start_search(
    registry: Registry,
    draft: Draft,
    trials: int,
    space: Mapping[str, Any],
    out: Path | None,
    *,
    objective: str | None,
    storage: str | None,
    jobs: int,
    quiet: bool,
    data: Any,
) -> Sweep:
    """Train a new search, or take part in one that a storage has. What is wrong with the request
    is found before the first member."""
    if trials < 1:
        raise UsageError(f"search must be 1 or more trials, got {trials}")
    check_jobs(registry, jobs, data)
    config, told = described(registry, draft, read_space(space), objective, data)
    draft = rooted_draft(draft, [config])
    storage = rooted(storage) if storage else None
    told |= {"trials": trials, "storage": masked(storage or ""), "folder": uuid.uuid4().hex}
    if storage:  # what is wrong with it is said before there is a folder
        Study(told, Path(), storage, new=True).close()
    folder = create_sweep_folder(out, RUNS, f"sweep-{config.model.name}-{config.data_name}")
    facts = {"search": told, "in_memory": data is not None, "together": False, "jobs": jobs}
    sweep = Sweep(folder, first_record(draft, [], created=now(), **facts), registry)
    write_first(sweep)
    with locked(folder), closing(Study(told, folder, storage, new=True)) as study:
        searcher = Searcher(sweep, draft, study, data, jobs=jobs, quiet=quiet)
        searcher.run([])
    return sweep


def described(
    registry: Registry, draft: Draft, space: Space, objective: str | None, data: Any
) -> tuple[RunConfig, dict[str, Any]]:
    """A configuration of the search, and what sweep.json says of it: its space, its objective, and
    the name of its study, which is the same for all that search for the same."""
    changed = changes_of_loss(space, draft.values)
    name = check_objective(objective, changed) if objective else ""
    config = check_space(draft, space, registry, in_memory=data is not None)
    name = name or check_objective(config.train.monitor, changed)
    check_optuna()
    splits = load_splits(config.dataset, config.data, data)
    figure, better = figure_of(registry, config, splits, name)
    told: dict[str, Any] = {
        "space": {key: part.as_json() for key, part in space.items()},
        "objective": figure,
        "better": better,
        "seed": base_seed(draft),
    }
    return config, {**told, "study": study_name(config, told, splits.sample)}


def go_on(
    sweep: Sweep,
    draft: Draft,
    data: Any,
    wanted: Sequence[Member],
    *,
    storage: str | None,
    jobs: int,
    quiet: bool,
) -> None:
    """Go on with a search, whose folder is locked, and with the members that are `wanted`."""
    if storage is not None and not sweep.search["storage"]:
        raise UsageError(f"{sweep.path} keeps its trials in its own folder, and takes no --storage")
    with closing(Study(sweep.search, sweep.path, storage, new=False)) as study:
        sweep.write(jobs=jobs)
        searcher = Searcher(sweep, draft, study, data, jobs=jobs, quiet=quiet)
        searcher.go_on(wanted)


def base_seed(draft: Draft) -> int:
    """The seed that the trials follow from: the settings' own."""
    seed = draft.values.get("train", {}).get("seed", 0)
    return seed if isinstance(seed, int) else 0  # not used, where the space has another


def study_name(config: RunConfig, told: Mapping[str, Any], sample: str) -> str:
    """The same for all that search for the same, whatever machine they train on. Where its images
    lie is not which images they are, and that `sample` says, which streamed data has too."""
    places = {key for key in path_keys(config) if key.startswith("data.")}
    settings = {
        key: value
        for key, value in flat(config.as_dict()).items()
        if key not in ELSEWHERE | places and value is not None  # None: a path that is not given
    }
    text = json.dumps([settings, dict(told), sample], sort_keys=True)
    return f"latentforge-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Searcher(Sweeper):
    """Asks a study for members as long as it has some, and tells it how they ended."""

    def __init__(
        self, sweep: Sweep, draft: Draft, study: Study, data: Any, *, jobs: int, quiet: bool
    ) -> None:
        super().__init__(sweep, data, jobs=jobs, quiet=quiet)
        self.draft, self.study = draft, study
        self.over = False  # whether the study has no more

    def go_on(self, wanted: Sequence[Member]) -> None:
        """Tell what could not be told before, then train those that are `wanted`, then others."""
        names = {member.name for member in wanted}
        for told in self.sweep.members:
            if told["name"] not in names:
                self.study.settle(told)
        known = {told["trial"] for told in self.sweep.members}
        found = [self.member(*asked) for asked in self.study.adopted(known)]
        todo = [(member, self.config_of(member)) for member in [*wanted, *found]]
        self.run([(member, config) for member, config in todo if config is not None])

    def member(self, number: int, values: Mapping[str, Any]) -> Member:
        """A trial as a member, which is recorded."""
        member = Member(trial_name(number, values), values)
        self.sweep.members.append(member_record(member, trial=number))
        self.sweep.write()
        return member

    def config_of(self, member: Member) -> RunConfig | None:
        """What a member trains; None where its values do not fit one another, which is its fault
        alone."""
        draft = draft_member(self.draft, member, "the search")
        try:
            return resolve(draft, self.sweep.registry, in_memory=self.data is not None)
        except LatentForgeError as error:
            self.told(member.name, "failed", str(error))
            return None

    def planned(self, todo: Sequence[tuple[Member, RunConfig]]) -> list[Job]:
        return [Job((member,)) for member, _ in todo]

    def take(self) -> Job | None:
        while not self.queue and not self.over:
            asked = self.study.ask()
            self.over = asked is None
            if asked is not None:
                member = self.member(*asked)
                config = self.config_of(member)
                if config is not None:
                    self.configs[member.name] = config
                    self.queue.append(Job((member,)))
        return super().take()

    def left(self) -> int:
        return len(self.queue) + max(0, self.study.left())

    def total(self) -> int:
        return int(self.sweep.search["trials"])

    def told(self, name: str, status: str, error: str) -> None:
        super().told(name, status, error)
        member = next(member for member in self.sweep.members if member["name"] == name)
        if status in ("done", "failed", "killed"):
            self.study.settle(member)
        figure = str(self.sweep.search["objective"])
        split, _, short = figure.partition("/")
        if status == "done" and short not in member["metrics"].get(split, {}):
            log.warning("%s has no figure %s, and tells the search nothing", name, figure)

    def report(self) -> None:
        self.sweep.write(best_of_all=self.study.best())
        super().report()
