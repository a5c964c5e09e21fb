"""A job of a sweep: one member, or several that are trained together; and the training of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.config import RunConfig
from latentforge.errors import Interrupted, LatentForgeError, one_line
from latentforge.run import MANIFEST
from latentforge.sweeping.plan import Member
from latentforge.training import train

if TYPE_CHECKING:
    from latentforge.forge import Forge

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
    forge: Forge, folder: Path, job: Job, configs: Sequence[RunConfig], told: Told, **how: Any
) -> str:
    """Train the job's members into their folders; why several cannot be trained together, where
    they cannot: then none has begun. `how` is quiet and data. Raises Interrupted after a signal;
    a member's own error is told and not raised."""
    if len(job.members) == 1:
        _train(forge, folder / job.members[0].name, configs[0], told, **how)
        return ""
    from latentforge.sweeping.together import Together

    names = [member.name for member in job.members]

    def ended(place: int, error: BaseException | None) -> None:
        told(names[place], *_standing(error))

    return Together(forge, [folder / name for name in names], configs, ended, **how).train()


def _train(forge: Forge, path: Path, config: RunConfig, told: Told, **how: Any) -> None:
    try:
        if (path / MANIFEST).exists():
            forge.resume(forge.open_run(path), **how)
        else:
            train(forge, config, run=path, **how)
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
