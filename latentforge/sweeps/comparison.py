"""How the members of a sweep compare: what the command prints as a table, and the report shows.
Torch-free."""

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
    """Of each member its record and, in the order of `figures`, the figures of one split.

    The split is validation, by which one may choose; where there is none it is test, whose figures
    are then no longer those of unseen images.
    """

    split: str
    figures: list[str]  # a search's objective first
    members: list[dict[str, Any]]  # those of a search the best first
    best: dict[str, str]  # the member with a figure's best value; none where none is better

    def value(self, member: Mapping[str, Any], figure: str) -> float | None:
        value = member["metrics"].get(self.split, {}).get(figure)
        return None if value is None else float(value)


def compare(sweep: Sweep) -> Comparison:
    every = [member["metrics"] for member in sweep.members if member["metrics"]]
    split = "validation" if all("validation" in metrics for metrics in every) else "test"
    objective = str(sweep.search.get("objective", "")).rpartition("/")[2]
    names = dict.fromkeys(name for metrics in every for name in metrics.get(split, {}))
    figures = sorted(names, key=lambda name: name != objective)  # which is stable
    best = {name: best_of(sweep, split, name) for name in figures}
    return Comparison(split, figures, sweep.ranked if sweep.search else sweep.members, best)


def best_of(sweep: Sweep, split: str, figure: str) -> str:
    """The member, of those that are done, with the best value of a figure; none where no measure
    says which way is up, or where the loss is not the same one for all."""
    if figure == "loss" and changes_of_loss(sweep.keys, sweep.record["base"]):
        return ""
    measures = sweep.registry.entries("measures")
    better = {entry.name.replace("-", "_"): entry.spec.better for entry in measures}.get(figure)
    done = [m for m in sweep.members if m["status"] == "done"]
    told = {str(m["name"]): m["metrics"].get(split, {}).get(figure) for m in done}
    found = {name: float(value) for name, value in told.items() if value is not None}
    if better is None or len({*found.values()}) < 2:  # one alone, or all the same
        return ""
    ordered = sorted(found, key=lambda name: found[name])
    return ordered[-1] if better == "higher" else ordered[0]


def shown_value(value: Any) -> str:
    """A member's value; what Optuna chose has more digits than one wants to read."""
    text = json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) and len(text) > 8 else text


def members(sweep: Sweep) -> dict[str, Any]:
    """What was varied, the members with their values, status, error and figures, and the commands
    that trained them and go on with what is not done."""
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
    """Write the page of a sweep, SWEEP/report.html by default. UsageError where nothing is done."""
    done = {m["name"] for m in sweep.members if m["status"] == "done"}
    runs = {run.name: run for run in sweep.runs() if run.name in done}
    if not runs:
        raise UsageError(f"no member of {sweep.path} is done", remedy=sweep.again)
    order = sweep.ranked if sweep.search else sweep.members
    ordered = [runs[member["name"]] for member in order if member["name"] in runs]
    return report(ordered, sweep.registry, out or sweep.path / "report.html", members(sweep))
