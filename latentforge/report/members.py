"""How a sweep went, in the shape of the report's first table: a row for each member."""

from __future__ import annotations

from typing import Any

from latentforge.report.values import number
from latentforge.sweeping.comparing import compare, shown_value
from latentforge.sweeping.folder import Sweep


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
