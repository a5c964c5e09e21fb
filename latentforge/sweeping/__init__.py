"""Sweeps: one training for each combination of a grid's values. Here is what Forge offers of them;
`plan` says which members there are, `folder` keeps them, `running` trains them. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from latentforge.drafting import Draft
from latentforge.registry import Registry
from latentforge.requesting import draft_request

if TYPE_CHECKING:
    from latentforge.forge import Forge
    from latentforge.sweeping.folder import Sweep


class Sweeps:
    """The part of Forge that sweeps."""

    registry: Registry

    def _forge(self) -> Forge:
        return cast("Forge", self)

    def sweep(
        self,
        name: str | None = None,
        /,
        *,
        grid: Mapping[str, Sequence[Any]],
        together: bool = True,
        jobs: int = 1,
        out: str | Path | None = None,
        quiet: bool = False,
        **request: Any,
    ) -> Sweep:
        """Train a member for each combination of a grid's values, and return the sweep.

        `grid` has lists by key: {"loss.beta": [1, 2, 4], "train.seed": [0, 1]}. What else is
        trained is said as in `train`. `out` is the new sweep's folder,
        `runs/sweep-<model>-<data>-<n>` by default, with a run folder in it for each member.

        `together` trains members that differ in numbers alone as one model, where a few steps both
        ways give the same; docs/sweeps.md says which. `jobs` members, or groups of them, are
        trained at a time, each in a process of its own with its share of the threads.

        A member that fails does not stop the others: `failed` names it. Raises what `train` does
        of the request, and Interrupted after Ctrl-C.
        """
        draft, data = draft_request(self.registry, name, **request)
        return self.sweep_draft(
            draft, grid, together=together, jobs=jobs, out=out, quiet=quiet, data=data
        )

    def sweep_draft(
        self,
        draft: Draft,
        grid: Mapping[str, Sequence[Any]],
        *,
        together: bool = True,
        jobs: int = 1,
        out: str | Path | None = None,
        quiet: bool = False,
        data: Any = None,
    ) -> Sweep:
        """Train what a draft and a grid describe; `data` is in-memory data or None."""
        from latentforge.sweeping.running import start

        return start(
            self._forge(),
            draft,
            grid,
            Path(out) if out else None,
            together=together,
            jobs=jobs,
            quiet=quiet,
            data=data,
        )

    def resume_sweep(
        self,
        sweep: str | Path,
        *,
        retry: bool = False,
        jobs: int | None = None,
        data: Any = None,
        quiet: bool = False,
    ) -> Sweep:
        """Go on with a sweep: members that are done stay as they are, stopped ones go on from their
        last checkpoint, with `retry` failed ones too, and the others begin; `jobs` as before, or as
        given."""
        from latentforge.sweeping.running import resume

        return resume(self._forge(), Path(sweep), retry=retry, jobs=jobs, quiet=quiet, data=data)
