"""From runs to the text of the page: gathers, and fills the template with autoescape on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from latentforge import __version__
from latentforge.drawing.html import head
from latentforge.report import MARK, default_path, mark
from latentforge.report.curves import curves, per_dimension
from latentforge.report.explored import explored, suggestion
from latentforge.report.facts import (
    commands,
    differences,
    evaluations,
    facts,
    figure_table,
    settings,
)
from latentforge.report.members import members
from latentforge.report.values import number, shell, short_date
from latentforge.run import Run

if TYPE_CHECKING:
    from latentforge.sweeping.folder import Sweep


@dataclass(frozen=True)
class Page:
    html: str
    explored: list[str]  # the folders shown
    warnings: list[str]
    next: str  # the command to run where nothing is explored yet


def render(runs: Sequence[Run], path: Path, sweep: Sweep | None = None) -> Page:
    warnings: list[str] = []
    names = distinct_names(runs)
    groups = explored(runs, names, warnings)
    hint = "" if groups else suggestion(runs[0])
    assets = files("latentforge.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "date": short_date, "shell": shell}
    template = environment.from_string((assets / "report.html").read_text("utf-8"))
    of = [sweep.path] if sweep else [run.path for run in runs]
    usual = sweep.path / "report.html" if sweep else default_path(runs)
    again = ["latentforge", "report", *map(str, of)]
    text = template.render(
        mark=Markup(f"{MARK}\n{mark(runs)}"),
        head=Markup(head()),
        style=Markup((assets / "report.css").read_text("utf-8")),
        version=__version__,
        title=sweep.path.resolve().name if sweep else " · ".join(names),
        sweep=members(sweep) if sweep else None,
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
        again=again if path == usual else [*again, "--out", str(path)],
        warnings=warnings,
    )
    shown = [str(entry.folder) for group in groups for entry in group.entries]
    return Page(text, shown, warnings, hint)


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, with the folders above them where names are the same."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
