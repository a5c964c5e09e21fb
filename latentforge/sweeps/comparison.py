"""Compares the members of a sweep, for the printed table and for the report. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentforge.errors import UsageError
from latentforge.rendering.report.formatting import format_number
from latentforge.rendering.report.write import report
from latentforge.sweeps.folder import Sweep
from latentforge.sweeps.grid import find_loss_changes


@dataclass(frozen=True)
class Comparison:
    """The members' records, and the names of their metrics on one split.

    The split is validation, or test if there is no validation split. If a member is selected by its
    test metrics, they no longer describe unseen images.
    """

    split: str
    metrics: list[str]  # the names; the objective of a search comes first
    members: list[dict[str, Any]]  # in a search, the best first
    best: dict[str, str]  # metric -> the member with the best value, or ""

    def value(self, member: Mapping[str, Any], metric: str) -> float | None:
        value = member["metrics"].get(self.split, {}).get(metric)
        return None if value is None else float(value)


def compare(sweep: Sweep) -> Comparison:
    measured = [member["metrics"] for member in sweep.members if member["metrics"]]
    split = "validation" if all("validation" in metrics for metrics in measured) else "test"
    objective = str(sweep.search.get("objective", "")).rpartition("/")[2]
    names = dict.fromkeys(name for metrics in measured for name in metrics.get(split, {}))
    ordered = sorted(names, key=lambda name: name != objective)  # sorted() is stable
    best = {name: find_best_member(sweep, split, name) for name in ordered}
    return Comparison(split, ordered, sweep.ranked if sweep.search else sweep.members, best)


def find_best_member(sweep: Sweep, split: str, metric: str) -> str:
    """Return the name of the finished member with the best value of a metric. Empty if no measure
    defines which direction is better, if all values are equal, or if the metric is the loss and the
    members have different losses."""
    if metric == "loss" and find_loss_changes(sweep.keys, sweep.record["base"]):
        return ""
    measures = sweep.registry.entries("measures")
    better = {entry.name.replace("-", "_"): entry.spec.better for entry in measures}.get(metric)
    finished = [m for m in sweep.members if m["status"] == "done"]
    stored = {str(m["name"]): m["metrics"].get(split, {}).get(metric) for m in finished}
    values = {name: float(value) for name, value in stored.items() if value is not None}
    if better is None or len({*values.values()}) < 2:  # a single member, or equal values
        return ""
    ordered = sorted(values, key=lambda name: values[name])
    return ordered[-1] if better == "higher" else ordered[0]


def format_value(value: Any) -> str:
    """Format a member's value; long floats, such as those that Optuna chooses, get 6 digits."""
    text = json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) and len(text) > 8 else text


def members(sweep: Sweep) -> dict[str, Any]:
    """Collect the data of the report: what was varied, the members with their values, status, error
    and metrics, the command that started the sweep, and the command that resumes it."""
    comparison = compare(sweep)
    rows = [
        {
            "name": m["name"],
            "values": [format_value(value) for value in m["values"].values()],
            "status": m["status"],
            "error": m["error"],
            "figures": [
                (format_number(comparison.value(m, name)), m["name"] == comparison.best[name])
                for name in comparison.metrics
            ],
        }
        for m in comparison.members
    ]
    command = [str(argument) for argument in sweep.record.get("command", [])]
    statuses = [member["status"] for member in sweep.members]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    return {
        "path": str(sweep.path),
        "what": _describe_search(sweep),
        "counts": ", ".join(f"{count} {status}" for status, count in counts.items()),
        "keys": sweep.keys,
        "split": comparison.split,
        "figures": comparison.metrics,
        "rows": rows,
        "best": sweep.best,
        "command": ["latentforge", *command] if "sweep" in command else [],
        "again": "" if set(statuses) == {"done"} else sweep.resume_command,
    }


def _describe_search(sweep: Sweep) -> str:
    search = sweep.search
    varied = search["space"] if search else sweep.record["grid"]
    start = f"search for a {search['better']} {search['objective']}, " if search else ""
    return start + " and ".join(
        f"{key} in {value if isinstance(value, str) else format_value(value)}"
        for key, value in varied.items()
    )


def write_sweep_report(sweep: Sweep, out: Path | None = None) -> dict[str, Any]:
    """Write the report of a sweep, by default to SWEEP/report.html. Raises UsageError if no member
    is done."""
    done = {m["name"] for m in sweep.members if m["status"] == "done"}
    runs = {run.name: run for run in sweep.runs() if run.name in done}
    if not runs:
        raise UsageError(f"no member of {sweep.path} is done", hint=sweep.resume_command)
    order = sweep.ranked if sweep.search else sweep.members
    ordered = [runs[member["name"]] for member in order if member["name"] in runs]
    return report(ordered, sweep.registry, out or sweep.path / "report.html", members(sweep))
