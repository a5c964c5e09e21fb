"""A job of a sweep (one member, or several that are trained together) and its execution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentforge.config.schema import RunConfig
from latentforge.errors import Interrupted, LatentForgeError, one_line
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import build_draft, resolve_resumed_config
from latentforge.runs.folder import MANIFEST
from latentforge.sweeps.grid import Member
from latentforge.workflows.resume import resume
from latentforge.workflows.run import open_run
from latentforge.workflows.train import train

StatusCallback = Callable[[str, str, str], None]
"""Receives a member's name, its status (done, failed, killed, interrupted) and its error."""


@dataclass(frozen=True)
class Job:
    """The unit of work of one process. Several members are trained together or not at all."""

    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        first, *others = self.members
        return f"{first.name} and {len(others)} more" if others else first.name


def run_job(
    registry: Registry,
    folder: Path,
    job: Job,
    configs: Sequence[RunConfig],
    report: StatusCallback,
    **options: Any,
) -> str:
    """Train the job's members in their folders. If several members cannot be trained together,
    returns the reason and starts none. `options` contains `quiet` and `data`. A member's error is
    passed to `report`, not raised. Raises Interrupted after a signal."""
    if len(job.members) == 1:
        _train(registry, folder / job.members[0].name, configs[0], report, **options)
        return ""
    from latentforge.sweeps.vectorized import VectorizedJob

    names = [member.name for member in job.members]

    def report_end(index: int, error: BaseException | None) -> None:
        report(names[index], *_member_status(error))

    return VectorizedJob(
        registry, [folder / name for name in names], configs, report_end, **options
    ).train()


def _train(
    registry: Registry, path: Path, config: RunConfig, report: StatusCallback, **options: Any
) -> None:
    try:
        if (path / MANIFEST).exists():
            run = open_run(registry, path)
            draft = build_draft(run)
            data = draft.add_data(options.pop("data"))
            resume(run, resolve_resumed_config(registry, run, draft), data=data, **options)
        else:
            train(registry, config, run=path, **options)
    except (KeyboardInterrupt, Interrupted) as stop:
        report(path.name, *_member_status(stop))
        raise
    except Exception as error:
        report(path.name, *_member_status(error))
    else:
        report(path.name, *_member_status(None))


def _member_status(error: BaseException | None) -> tuple[str, str]:
    """The status and the error message of a member whose training ended with `error`."""
    if error is None:
        return "done", ""
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted", ""
    return "failed", str(error) if isinstance(error, LatentForgeError) else one_line(error)
