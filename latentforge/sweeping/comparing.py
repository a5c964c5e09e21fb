"""How the members of a sweep compare: what the command prints as a table, and the report shows.
Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentforge.sweeping.folder import Sweep
from latentforge.sweeping.plan import changes_of_loss


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
    measures = sweep.forge.registry.entries("measures")
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
