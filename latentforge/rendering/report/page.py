"""Renders the report page: collects the content and fills the template, with autoescape on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from latentforge._version import __version__
from latentforge.plugins.registry import Registry
from latentforge.rendering.html.page import head
from latentforge.rendering.report.curves import curves, per_dimension
from latentforge.rendering.report.explorations import explored, suggestion
from latentforge.rendering.report.formatting import number, short_date
from latentforge.rendering.report.location import MARK, default_path, mark
from latentforge.rendering.report.run_table import (
    commands,
    differences,
    evaluations,
    facts,
    figure_table,
    settings,
)
from latentforge.runs.folder import RunFolder


@dataclass(frozen=True)
class Page:
    html: str
    explored: list[str]  # the folders shown
    warnings: list[str]
    next: str  # the suggested command if nothing is explored yet


def render(
    runs: Sequence[RunFolder],
    registry: Registry,
    path: Path,
    sweep: Mapping[str, Any] | None = None,
) -> Page:
    warnings: list[str] = []
    names = distinct_names(runs)
    groups = explored(runs, names, registry, warnings)
    hint = "" if groups else suggestion(runs[0], registry)
    assets = files("latentforge.rendering.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "date": short_date, "shell": shlex.join}
    template = environment.from_string((assets / "report.html").read_text("utf-8"))
    paths = [Path(sweep["path"])] if sweep else [run.path for run in runs]
    default = paths[0] / "report.html" if sweep else default_path(runs)
    command = ["latentforge", "report", *map(str, paths)]
    text = template.render(
        mark=Markup(f"{MARK}\n{mark(runs)}"),
        head=Markup(head()),
        style=Markup((assets / "report.css").read_text("utf-8")),
        version=__version__,
        title=paths[0].resolve().name if sweep else " · ".join(names),
        sweep=sweep,
        runs=[facts(run, name) for run, name in zip(runs, names, strict=True)],
        figures=figure_table(runs, names),
        curves=[(key, Markup(chart)) for key, chart in curves(runs, names, warnings)],
        per_dimension=[Markup(chart) for chart in per_dimension(runs, names)],
        groups=groups,
        hint=hint,
        evaluations=evaluations(runs, names, warnings),
        differences=differences(runs),
        settings=[settings(run, name) for run, name in zip(runs, names, strict=True)],
        commands=[commands(run, name) for run, name in zip(runs, names, strict=True)],
        again=command if path == default else [*command, "--out", str(path)],
        warnings=warnings,
    )
    folders = [str(entry.folder) for group in groups for entry in group.entries]
    return Page(text, folders, warnings, hint)


def distinct_names(runs: Sequence[RunFolder]) -> list[str]:
    """The names of the folders, with the folders above them where names are the same."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
