"""Writes the report of one run, or of several runs side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentforge.errors import UsageError
from latentforge.io.paths import write_error, write_text
from latentforge.plugins.registry import Registry
from latentforge.rendering.report.location import check_target, default_path
from latentforge.runs.folder import RunFolder

log = logging.getLogger(__name__)


def report(
    runs: Sequence[RunFolder],
    registry: Registry,
    out: Path | None = None,
    sweep: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the page. Returns `report`, `runs`, `explored` (folders), `bytes`, `warnings`, `next`.
    If the runs are the members of a sweep, `sweep` contains the table at the start of the page.

    An earlier report is replaced. Raises UsageError if another file exists at the path, or if a run
    is given twice. Raises RunFailed if the page cannot be written.
    """
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UsageError("a run is given more than once", hint="give each run once")
    path = out or default_path(runs)
    check_target(path)
    from latentforge.rendering.report.page import render  # plotly and jinja2 are slow to import

    page = render(runs, registry, path, sweep)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from None
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
