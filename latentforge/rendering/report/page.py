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
from latentforge.rendering.report import run_table
from latentforge.rendering.report.curves import plot_curves, plot_per_dimension
from latentforge.rendering.report.explorations import collect_explorations, suggest_command
from latentforge.rendering.report.formatting import format_date, format_number
from latentforge.rendering.report.location import MARK, create_mark, default_path
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
    groups = collect_explorations(runs, names, registry, warnings)
    hint = "" if groups else suggest_command(runs[0], registry)
    assets = files("latentforge.rendering.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "date": format_date, "shell": shlex.join}
    template = environment.from_string((assets / "report.html").read_text("utf-8"))
    paths = [Path(sweep["path"])] if sweep else [run.path for run in runs]
    default = paths[0] / "report.html" if sweep else default_path(runs)
    command = ["latentforge", "report", *map(str, paths)]
    text = template.render(
        mark=Markup(f"{MARK}\n{create_mark(runs)}"),
        head=Markup(head()),
        style=Markup((assets / "report.css").read_text("utf-8")),
        version=__version__,
        title=paths[0].resolve().name if sweep else " · ".join(names),
        sweep=sweep,
        runs=list(map(run_table.describe_run, runs, names)),
        figures=run_table.create_metric_table(runs, names),
        curves=[(key, Markup(chart)) for key, chart in plot_curves(runs, names, warnings)],
        per_dimension=[Markup(chart) for chart in plot_per_dimension(runs, names)],
        groups=groups,
        hint=hint,
        evaluations=run_table.read_evaluations(runs, names, warnings),
        differences=run_table.find_differences(runs),
        settings=list(map(run_table.describe_settings, runs, names)),
        commands=list(map(run_table.list_commands, runs, names)),
        page_command=command if path == default else [*command, "--out", str(path)],
        warnings=warnings,
    )
    folders = [str(entry.folder) for group in groups for entry in group.entries]
    return Page(text, folders, warnings, hint)


def distinct_names(runs: Sequence[RunFolder]) -> list[str]:
    """Name each run by its folder. If names are equal, add as many parent folders as needed."""
    paths = [run.path.resolve() for run in runs]  # all different
    longest = max(len(path.parts) for path in paths)
    by_depth = (["/".join(p.parts[-depth:]) for p in paths] for depth in range(1, longest + 1))
    return next(names for names in by_depth if len(set(names)) == len(names))
