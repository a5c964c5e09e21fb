"""Compares the members of a sweep, for the printed table and for the report. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentforge.errors import UsageError
from latentforge.rendering.report.formatting import number
from latentforge.rendering.report.write import report
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.grid import changes_of_loss


@dataclass(frozen=True)
class Comparison:
    """The members' records, and the names of their metrics on one split.

    The split is validation, whose metrics may be used to choose a member. If there is none, it is
    test, and a choice by its metrics means that they no longer describe unseen images.
    """

    split: str
    figures: list[str]  # the names; the objective of a search comes first
    members: list[dict[str, Any]]  # in a search, the best first
    best: dict[str, str]  # metric -> the member with the best value, or ""

    def value(self, member: Mapping[str, Any], figure: str) -> float | None:
        value = member["metrics"].get(self.split, {}).get(figure)
        return None if value is None else float(value)


def compare(sweep: Sweep) -> Comparison:
    every = [member["metrics"] for member in sweep.members if member["metrics"]]
    split = "validation" if all("validation" in metrics for metrics in every) else "test"
    objective = str(sweep.search.get("objective", "")).rpartition("/")[2]
    names = dict.fromkeys(name for metrics in every for name in metrics.get(split, {}))
    figures = sorted(names, key=lambda name: name != objective)  # sorted() is stable
    best = {name: best_of(sweep, split, name) for name in figures}
    return Comparison(split, figures, sweep.ranked if sweep.search else sweep.members, best)


def best_of(sweep: Sweep, split: str, figure: str) -> str:
    """The finished member with the best value of a metric. Empty if no measure defines which
    direction is better, if the values do not differ, or, for the loss, if the losses differ."""
    if figure == "loss" and changes_of_loss(sweep.keys, sweep.record["base"]):
        return ""
    measures = sweep.registry.entries("measures")
    better = {entry.name.replace("-", "_"): entry.spec.better for entry in measures}.get(figure)
    done = [m for m in sweep.members if m["status"] == "done"]
    told = {str(m["name"]): m["metrics"].get(split, {}).get(figure) for m in done}
    found = {name: float(value) for name, value in told.items() if value is not None}
    if better is None or len({*found.values()}) < 2:  # a single member, or equal values
        return ""
    ordered = sorted(found, key=lambda name: found[name])
    return ordered[-1] if better == "higher" else ordered[0]


def shown_value(value: Any) -> str:
    """A member's value as text; values that Optuna chose are shortened to 6 digits."""
    text = json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) and len(text) > 8 else text


def members(sweep: Sweep) -> dict[str, Any]:
    """The report's data: what was varied, the members with their values, status, error and
    metrics, and the commands that trained them and that resume the rest."""
    found = compare(sweep)
    rows = [
        {
            "name": member["name"],
            "values": [shown_value(value) for value in member["values"].values()],
            "status": member["status"],
            "error": member["error"],
            "figures": [
                (number(found.value(member, name)), member["name"] == found.best[name])
                for name in found.figures
            ],
        }
        for member in found.members
    ]
    given = [str(word) for word in sweep.record.get("command", [])]
    statuses = [member["status"] for member in sweep.members]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    return {
        "path": str(sweep.path),
        "what": _what(sweep),
        "counts": ", ".join(f"{count} {status}" for status, count in counts.items()),
        "keys": sweep.keys,
        "split": found.split,
        "figures": found.figures,
        "rows": rows,
        "best": sweep.best,
        "command": ["latentforge", *given] if "sweep" in given else [],
        "again": "" if set(statuses) == {"done"} else sweep.again,
    }


def _what(sweep: Sweep) -> str:
    search = sweep.search
    varied = search["space"] if search else sweep.record["grid"]
    said = " and ".join(
        f"{key} in {value if isinstance(value, str) else shown_value(value)}"
        for key, value in varied.items()
    )
    return f"search for a {search['better']} {search['objective']}, {said}" if search else said


def report_of_sweep(sweep: Sweep, out: Path | None = None) -> dict[str, Any]:
    """Write a sweep's page, by default SWEEP/report.html. UsageError if no member is done."""
    done = {m["name"] for m in sweep.members if m["status"] == "done"}
    runs = {run.name: run for run in sweep.runs() if run.name in done}
    if not runs:
        raise UsageError(f"no member of {sweep.path} is done", remedy=sweep.again)
    order = sweep.ranked if sweep.search else sweep.members
    ordered = [runs[member["name"]] for member in order if member["name"] in runs]
    return report(ordered, sweep.registry, out or sweep.path / "report.html", members(sweep))
