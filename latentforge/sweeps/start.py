"""Starts a sweep (a grid or a search), or resumes an interrupted one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentforge.config.changes import check_changes
from latentforge.config.request import Draft
from latentforge.errors import ConfigError, UsageError
from latentforge.io.redact import mask_passwords
from latentforge.plugins.registry import Registry
from latentforge.runs.folder import MANIFEST, lock_run, open_folder, status_of
from latentforge.runs.manifest import now
from latentforge.runtime import torchrun
from latentforge.sweeps.folder import RECORD, Sweep, create_sweep, open_sweep
from latentforge.sweeps.grid import Member, create_members, resolve_all
from latentforge.sweeps.optuna_study import Study, make_absolute
from latentforge.sweeps.process_pool import check_jobs
from latentforge.sweeps.record import as_json, first_record, make_draft_absolute, make_grid_absolute
from latentforge.sweeps.runner import Sweeper
from latentforge.sweeps.search import Searcher, describe_search
from latentforge.sweeps.search_space import check_kind, read_space
from latentforge.workflows.run import open_run

log = logging.getLogger("latentforge")


def start_sweep(
    registry: Registry,
    draft: Draft,
    grid: Mapping[str, Sequence[Any]],
    *,
    search: int | None,
    space: Mapping[str, str | Sequence[Any]] | None,
    objective: str | None,
    storage: str | None,
    together: bool,
    jobs: int,
    out: str | Path | None,
    quiet: bool,
    data: Any = None,
) -> Sweep:
    """Train the members that a request and a grid or a space describe. `data` is in-memory data or
    None. A search may join an existing search in a storage. Faults of the request are found before
    the first member is trained."""
    refuse_torchrun()
    check_kind(grid, search, space=space, objective=objective, storage=storage)
    check_jobs(registry, jobs, data)
    draft = replace(draft, values=as_json(draft.values), callbacks=as_json(draft.callbacks))
    in_memory = data is not None
    varied: dict[str, Any]
    if search is None:
        grid = as_json(grid)
        configs = resolve_all(draft, create_members(grid), registry, in_memory=in_memory)
        grid = make_grid_absolute(grid, configs)
        members = create_members(grid)  # created again, because names contain the values
        varied = {"grid": grid}
    else:
        dimensions = read_space(as_json(space or {}))
        config, section = describe_search(registry, draft, dimensions, objective, data)
        storage = make_absolute(storage) if storage else None
        masked = mask_passwords(storage or "")
        section |= {"trials": search, "storage": masked, "folder": uuid.uuid4().hex}
        if storage:  # raises before the folder is created
            Study(section, Path(), storage, new=True).close()
        configs, members, varied = [config], [], {"search": section}
    draft = make_draft_absolute(draft, configs)
    varied |= {"in_memory": in_memory, "together": together and search is None, "jobs": jobs}
    record = first_record(draft, members, created=now(), **varied)
    name = f"sweep-{configs[0].model.name}-{configs[0].data_name}"
    sweep = create_sweep(registry, Path(out) if out else None, name, record)
    with lock_run(sweep.path):
        if search is None:
            Sweeper(sweep, data, jobs=jobs, quiet=quiet).run(members, configs)
        else:
            with closing(Study(sweep.search, sweep.path, storage, new=True)) as study:
                Searcher(sweep, draft, study, data, jobs=jobs, quiet=quiet).run()
    return sweep


def resume_sweep(
    registry: Registry,
    path: Path,
    *,
    retry: bool,
    jobs: int | None,
    storage: str | None,
    quiet: bool,
    data: Any,
) -> Sweep:
    """Resume a sweep in its own folder."""
    refuse_torchrun()
    open_sweep(registry, path)  # raises unless it is a sweep, before a lock is created
    with lock_run(path):
        sweep = open_sweep(registry, path)  # as the last process left it
        for partial in path.glob(f".{RECORD}.*"):  # partial files of a killed process
            partial.unlink(missing_ok=True)
        draft = sweep.draft()
        data = draft.add_data(data)
        in_memory = data is not None
        if sweep.record["in_memory"] != in_memory:
            raise UsageError(
                f"{path} was {'not ' if in_memory else ''}trained on data passed in Python",
                hint="Forge().resume_sweep(path, data=...) with the training data",
            )
        jobs = sweep.record.get("jobs", 1) if jobs is None else jobs
        check_jobs(registry, jobs, data)
        unfinished = [m for m in sweep.members if needs_training(sweep, m, retry=retry)]
        members = [Member(m["name"], m["values"]) for m in unfinished]
        if members or sweep.search:
            warn_about_defaults(sweep, draft, in_memory=in_memory)
        if storage is not None and not sweep.search:
            raise UsageError(f"{path} is a sweep over a grid; --storage requires a search")
        if storage is not None and not sweep.search["storage"]:
            raise UsageError(
                f"{path} stores its trials in its own folder; --storage is not allowed"
            )
        if sweep.search:
            with closing(Study(sweep.search, path, storage, new=False)) as study:
                sweep.write(jobs=jobs)
                Searcher(sweep, draft, study, data, jobs=jobs, quiet=quiet).resume(members)
        else:
            configs = resolve_all(draft, members, registry, in_memory=in_memory)
            sweep.write(jobs=jobs)
            Sweeper(sweep, data, jobs=jobs, quiet=quiet).run(members, configs)
    return sweep


def needs_training(sweep: Sweep, member: dict[str, Any], *, retry: bool) -> bool:
    """Whether a member needs training, after an update of its record from its run folder."""
    path = sweep.path / member["name"]
    if (path / MANIFEST).exists():
        run = open_run(sweep.registry, path)
        status = status_of(path, run.manifest)
        member.update(status=status, metrics=run.metrics, error=run.manifest.get("error", ""))
    return member["status"] != "done" and (retry or member["status"] != "failed")


def warn_about_defaults(sweep: Sweep, draft: Draft, *, in_memory: bool) -> None:
    """Warn if a finished member would have other settings today, because defaults have changed."""
    trained = (m for m in sweep.members if (sweep.path / m["name"] / MANIFEST).exists())
    done = next((m for m in trained if m["status"] == "done"), None)
    if done is None:
        return
    member = Member(done["name"], done["values"])
    [config] = resolve_all(draft, [member], sweep.registry, in_memory=in_memory)
    try:
        check_changes(open_folder(sweep.path / member.name).config, config)
    except ConfigError as error:
        log.warning(
            "defaults have changed since %s was trained, so that the members of this sweep differ: "
            "%s; a new sweep trains all members alike",
            member.name,
            "; ".join(error.details),
        )


def refuse_torchrun() -> None:
    """Raise UsageError under torchrun, where each process would train every member."""
    torchrun.reject("sweep", "run it without torchrun; jobs=2 trains two members at a time")
