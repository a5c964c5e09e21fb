"""Chooses the path of a report, and checks which existing file it may replace."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from latentforge.errors import RunFailed, UsageError
from latentforge.io.paths import quoted
from latentforge.runs.folder import RunFolder

MARK = '<meta name="generator" content="LatentForge report">'


def default_path(runs: Sequence[RunFolder]) -> Path:
    """Return RUN/report.html, or for several runs `report-A-B.html` in their deepest common folder.

    If the runs have only the root in common, the report is in the working folder. A number is added
    if that file exists and is not the report of these runs.
    """
    if len(runs) == 1:
        return runs[0].path / "report.html"
    names = "-".join(run.path.resolve().name for run in runs)
    if len(names) > 100:
        names = f"{runs[0].path.resolve().name[:80]}-and-{len(runs) - 1}-more"
    try:
        folder = Path(os.path.commonpath([run.path.resolve().parent for run in runs]))
    except ValueError:  # the runs are on several drives
        folder = Path(os.path.sep)
    if folder != Path(folder.anchor):
        cwd = Path.cwd().resolve()
        if folder.is_relative_to(cwd):  # the relative path is shorter
            folder = folder.relative_to(cwd)
        return folder / f"report-{names}.html"
    numbered_paths = (Path(f"report-{names}-{number}.html") for number in count(2))
    candidates = chain([Path(f"report-{names}.html")], numbered_paths)
    return next(path for path in candidates if not path.exists() or _is_report_of(runs, path))


def create_mark(runs: Sequence[RunFolder]) -> str:
    """The meta element that identifies the runs of a page. It contains a hash, because paths may
    contain any character."""
    paths = "\n".join(str(run.path.resolve()) for run in runs)
    digest = hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()
    return f'<meta name="runs" content="{digest}">'


def _is_report_of(runs: Sequence[RunFolder], path: Path) -> bool:
    try:
        return create_mark(runs) in _read_beginning(path)
    except OSError:
        return False


def check_target(path: Path) -> None:
    """Raise UsageError if `path` is no HTML file, or exists and is not a report; RunFailed if it
    cannot be read."""
    if path.suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(
            f"--out {path} must end in .html: the report is an HTML page",
            hint=f"--out {quoted(path.with_suffix('.html'))}",
        )
    try:
        if not path.exists():
            return
        if path.is_dir():
            raise UsageError(f"{path} is a folder", hint=f"--out {path / 'report.html'}")
        is_report = MARK in _read_beginning(path)
    except OSError as error:
        raise RunFailed(f"cannot read {path}: {error.strerror or error}") from None
    if not is_report:
        raise UsageError(
            f"{path} is not a LatentForge report and will not be overwritten",
            hint="choose another --out",
        )


def _read_beginning(path: Path) -> str:
    """The first 2000 characters of a file."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        return file.read(2000)
