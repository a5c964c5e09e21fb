"""The report: one self-contained page of one run, or of several side by side.

Where it goes and what it may overwrite; `page.py` and the modules beside it make the page.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge.errors import RunFailed, UsageError
from latentforge.run import Run, unwritable, write_text

if TYPE_CHECKING:
    from latentforge.sweeping.folder import Sweep

log = logging.getLogger(__name__)

MARK = '<meta name="generator" content="LatentForge report">'


def report(
    runs: Sequence[Run], out: Path | None = None, sweep: Sweep | None = None
) -> dict[str, Any]:
    """Write the page: `report`, `runs`, `explored` (folders shown), `bytes`, `warnings`, `next`.
    Of a sweep, whose members the runs are, it begins with how they compare.

    An earlier report is written anew; anything else in its place raises UsageError.
    """
    places = [run.path.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise UsageError("a run is given twice", remedy="each run once")
    path = out or default_path(runs)
    check_place(path)
    from latentforge.report.page import render  # plotly and jinja2 take their time

    page = render(runs, path, sweep)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    write_text(path, page.html)
    for warning in page.warnings:
        log.warning("%s", warning)
    return {
        "report": str(path),
        "runs": [str(run.path) for run in runs],
        "explored": page.explored,
        "bytes": path.stat().st_size,
        "warnings": page.warnings,
        "next": page.next,
    }


def report_of_sweep(sweep: Sweep, out: Path | None = None) -> dict[str, Any]:
    """Write the page of a sweep, SWEEP/report.html by default. UsageError where nothing is done."""
    done = {m["name"] for m in sweep.members if m["status"] == "done"}
    runs = {run.name: run for run in sweep.runs() if run.name in done}
    if not runs:
        raise UsageError(f"no member of {sweep.path} is done", remedy=sweep.again)
    order = sweep.ranked if sweep.search else sweep.members
    ordered = [runs[member["name"]] for member in order if member["name"] in runs]
    return report(ordered, out or sweep.path / "report.html", sweep)


def default_path(runs: Sequence[Run]) -> Path:
    """RUN/report.html; of several runs `report-A-B.html` in the folder that holds them all.

    Where only the root holds them all it is the working folder, with a number after the name where
    that is taken by anything but the report of these runs.
    """
    if len(runs) == 1:
        return runs[0].path / "report.html"
    names = "-".join(run.path.resolve().name for run in runs)
    if len(names) > 100:
        names = f"{runs[0].path.resolve().name[:80]}-and-{len(runs) - 1}-more"
    try:
        folder = Path(os.path.commonpath([run.path.resolve().parent for run in runs]))
    except ValueError:  # on several drives
        folder = Path(os.path.sep)
    if folder != Path(folder.anchor):
        return _as_given(folder) / f"report-{names}.html"
    numbered = (Path(f"report-{names}-{number}.html") for number in count(2))
    places = chain([Path(f"report-{names}.html")], numbered)
    return next(path for path in places if not path.exists() or _is_of(runs, path))


def mark(runs: Sequence[Run]) -> str:
    """The line of a page that says which runs it is of, whatever their paths hold."""
    paths = "\n".join(str(run.path.resolve()) for run in runs)
    digest = hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()
    return f'<meta name="runs" content="{digest}">'


def _is_of(runs: Sequence[Run], path: Path) -> bool:
    try:
        return mark(runs) in _beginning(path)
    except OSError:
        return False


def check_place(path: Path) -> None:
    """UsageError unless there is nothing yet, or an earlier report."""
    try:
        if not path.exists():
            return
        if path.is_dir():
            raise UsageError(f"{path} is a folder", remedy=f"--out {path / 'report.html'}")
        ours = MARK in _beginning(path)
    except OSError as error:
        raise RunFailed(f"cannot read {path}: {error.strerror or error}") from None
    if not ours:
        raise UsageError(
            f"{path} is no report of LatentForge; nothing is overwritten", remedy="another --out"
        )


def _beginning(path: Path) -> str:
    """The first letters of a file; none of what is a folder."""
    if path.is_dir():
        return ""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        return file.read(2000)


def _as_given(folder: Path) -> Path:
    """Relative to the working folder where it lies there: short, and as people type it."""
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
