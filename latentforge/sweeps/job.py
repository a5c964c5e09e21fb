"""A job of a sweep: one member, or several that are trained together; and the training of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentforge.config.schema import RunConfig
from latentforge.errors import Interrupted, LatentForgeError, one_line
from latentforge.plugins.registry import Registry
from latentforge.runs.compatibility import draft_of, resumed_config
from latentforge.runs.folder import MANIFEST
from latentforge.sweeps.grid import Member
from latentforge.workflows.resume import resume
from latentforge.workflows.run import open_run
from latentforge.workflows.train import train

Told = Callable[[str, str, str], None]
"""Hears how a member stands: its name, its status (done, failed, killed, interrupted), its error.
"""


@dataclass(frozen=True)
class Job:
    """What one process does at a time. Several members are trained together, or not at all."""

    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        first, *others = self.members
        return f"{first.name} and {len(others)} more" if others else first.name


def do_job(
    registry: Registry, folder: Path, job: Job, configs: Sequence[RunConfig], told: Told, **how: Any
) -> str:
    """Train the job's members into their folders; why several cannot be trained together, where
    they cannot: then none has begun. `how` is quiet and data. Raises Interrupted after a signal;
    a member's own error is told and not raised."""
    if len(job.members) == 1:
        _train(registry, folder / job.members[0].name, configs[0], told, **how)
        return ""
    from latentforge.sweeps.vectorized import Together

    names = [member.name for member in job.members]

    def ended(place: int, error: BaseException | None) -> None:
        told(names[place], *_standing(error))

    return Together(registry, [folder / name for name in names], configs, ended, **how).train()


def _train(registry: Registry, path: Path, config: RunConfig, told: Told, **how: Any) -> None:
    try:
        if (path / MANIFEST).exists():
            run = open_run(registry, path)
            draft = draft_of(run)
            data = draft.data(how.pop("data"))
            resume(run, resumed_config(registry, run, draft), data=data, **how)
        else:
            train(registry, config, run=path, **how)
    except (KeyboardInterrupt, Interrupted) as stop:
        told(path.name, *_standing(stop))
        raise
    except Exception as error:
        told(path.name, *_standing(error))
    else:
        told(path.name, *_standing(None))


def _standing(error: BaseException | None) -> tuple[str, str]:
    """How a member stands that ended so, and what is to be said of it."""
    if error is None:
        return "done", ""
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted", ""
    return "failed", str(error) if isinstance(error, LatentForgeError) else one_line(error)
