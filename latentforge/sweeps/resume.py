"""Resumes a sweep that was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentforge.errors import UsageError
from latentforge.plugins.registry import Registry
from latentforge.runs.folder import MANIFEST, locked, status_of
from latentforge.sweeps.folder import RECORD, Sweep, open_sweep
from latentforge.sweeps.grid import Member, resolve_all
from latentforge.sweeps.process_pool import check_jobs
from latentforge.sweeps.runner import Sweeper
from latentforge.workflows.run import open_run


def resume(
    registry: Registry,
    path: Path,
    *,
    retry: bool,
    jobs: int | None,
    quiet: bool,
    data: Any,
    storage: str | None,
) -> Sweep:
    """Go on with a sweep in its own folder."""
    open_sweep(registry, path)  # before a lock is made in a folder that is none of ours
    with locked(path):
        sweep = open_sweep(registry, path)  # as whoever trained last has left it
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
        jobs = sweep.record.get("jobs", 1) if jobs is None else jobs
        check_jobs(registry, jobs, data)
        wanted = [member for member in sweep.plan() if open_end(sweep, member, retry=retry)]
        if sweep.search:
            from latentforge.sweeps.search import go_on

            go_on(sweep, draft, data, wanted, storage=storage, jobs=jobs, quiet=quiet)
            return sweep
        if storage is not None:
            raise UsageError(f"{path} is a grid, which has no storage")
        configs = resolve_all(draft, wanted, registry, in_memory=data is not None)
        sweep.write(jobs=jobs)
        Sweeper(sweep, data, jobs=jobs, quiet=quiet).run(list(zip(wanted, configs, strict=True)))
    return sweep


def open_end(sweep: Sweep, member: Member, *, retry: bool) -> bool:
    """Whether a member is to be trained, or on; its run folder knows better than sweep.json."""
    path = sweep.path / member.name
    said = next(told for told in sweep.members if told["name"] == member.name)
    if (path / MANIFEST).exists():
        run = open_run(sweep.registry, path)
        status = status_of(path, run.manifest)
        said.update(status=status, metrics=run.metrics, error=run.manifest.get("error", ""))
    return said["status"] != "done" and (retry or said["status"] != "failed")
