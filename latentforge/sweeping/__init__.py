"""Sweeps: one training for each combination of a grid's values, or for each trial of a search. Here
is what Forge offers of them; `plan` and `space` say which members there are, `folder` keeps them,
`running` and `searching` train them. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from latentforge import torchrun
from latentforge.drafting import Draft
from latentforge.errors import UsageError
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
        grid: Mapping[str, Sequence[Any]] | None = None,
        search: int | None = None,
        space: Mapping[str, str | Sequence[Any]] | None = None,
        objective: str | None = None,
        storage: str | None = None,
        together: bool = True,
        jobs: int = 1,
        out: str | Path | None = None,
        quiet: bool = False,
        **request: Any,
    ) -> Sweep:
        """Train a member for each combination of a grid's values, or for each trial of a search,
        and return the sweep.

        `grid` has lists by key: {"loss.beta": [1, 2, 4], "train.seed": [0, 1]}. What else is
        trained is said as in `train`. `out` is the new sweep's folder,
        `runs/sweep-<model>-<data>-<n>` by default, with a run folder in it for each member.

        `search` is how many trials Optuna chooses from `space`, ranges and lists by key:
        {"train.lr": "log(1e-4, 1e-2)", "model.latent_dim": "int(2, 32)"}. `objective` is the
        validation figure that it optimizes, by default the one of `train.monitor`; `storage` an
        Optuna storage URL, by default a file in the sweep's folder.

        `together` trains members that differ in numbers alone as one model, where a few steps both
        ways give the same; docs/sweeps.md says which. `jobs` members, or groups of them, are
        trained at a time, each in a process of its own with its share of the threads.

        A member that fails does not stop the others: `failed` names it. Raises what `train` does
        of the request, MissingError for a search without Optuna or with a storage that cannot be
        used, and Interrupted after Ctrl-C.
        """
        draft, data = draft_request(self.registry, name, **request)
        return self.sweep_draft(
            draft,
            grid,
            search=search,
            space=space,
            objective=objective,
            storage=storage,
            together=together,
            jobs=jobs,
            out=out,
            quiet=quiet,
            data=data,
        )

    def sweep_draft(
        self,
        draft: Draft,
        grid: Mapping[str, Sequence[Any]] | None = None,
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
        from latentforge.sweeping.plain import plain, plain_draft

        check_alone()
        check_kind(grid, search, space=space, objective=objective, storage=storage)
        draft, grid, space = plain_draft(draft), plain(grid or {}), plain(space or {})
        folder = Path(out) if out else None
        how: dict[str, Any] = {"jobs": jobs, "quiet": quiet, "data": data}
        if search is None:
            from latentforge.sweeping.running import start

            return start(self._forge(), draft, grid, folder, together=together, **how)
        from latentforge.sweeping import searching

        how |= {"objective": objective, "storage": storage}
        return searching.search(self._forge(), draft, search, space, folder, **how)

    def resume_sweep(
        self,
        sweep: str | Path,
        *,
        retry: bool = False,
        jobs: int | None = None,
        storage: str | None = None,
        data: Any = None,
        quiet: bool = False,
    ) -> Sweep:
        """Go on with a sweep: members that are done stay as they are, stopped ones go on from their
        last checkpoint, with `retry` failed ones too, and the others begin; `jobs` as before, or as
        given. `storage` is wanted again where its URL has a password, which no sweep keeps."""
        from latentforge.sweeping.running import resume

        check_alone()
        how: dict[str, Any] = {"retry": retry, "jobs": jobs, "quiet": quiet, "data": data}
        return resume(self._forge(), Path(sweep), storage=storage, **how)


def check_alone() -> None:
    """UsageError under torchrun, where each process would train every member."""
    torchrun.refuse("sweep", "the same without torchrun; jobs=2 trains two members at a time")


def check_kind(grid: Any, search: int | None, **of_a_search: Any) -> None:
    """UsageError for what is neither a grid nor a search, or some of both."""
    if grid and search is not None:
        raise UsageError(
            "a sweep is a grid or a search, not both",
            remedy="for a search, --space 'loss.beta=[1, 2, 4]' in the place of --grid",
        )
    given = [name for name, value in of_a_search.items() if value]
    if search is None and given:
        raise UsageError(
            f"{' and '.join(given)}: for a search, and there is none",
            remedy="--search 20, for 20 trials",
        )
