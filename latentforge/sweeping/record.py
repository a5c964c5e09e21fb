"""What sweep.json holds: a new one, and whether a file is one. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentforge import __version__
from latentforge.drafting import SECTIONS, Draft
from latentforge.errors import UsageError
from latentforge.masking import MASK, command_line
from latentforge.sweeping.plan import Member, members_of, name_of
from latentforge.sweeping.space import read_space

FORMAT = 1


def first_record(draft: Draft, members: Sequence[Member], **facts: Any) -> dict[str, Any]:
    """sweep.json of a new sweep, whose values are plain."""
    return {
        "format": FORMAT,
        "latentforge": __version__,
        "status": "running",
        "command": command_line(),
        **facts,
        "base": {**draft.values, "callbacks": draft.callbacks},
        "report": "",
        "members": [member_record(member) for member in members],
    }


def member_record(member: Member, **facts: Any) -> dict[str, Any]:
    """What sweep.json has of a member that has not begun."""
    return {
        "name": member.name,
        "values": dict(member.values),
        "status": "waiting",
        "error": "",
        "metrics": {},
        "alone_because": "",
        **facts,
    }


def command_again(folder: Path, search: Mapping[str, Any]) -> str:
    """The command that goes on with the sweep in `folder`; `search` is empty of a grid."""
    storage = " --storage URL" if MASK in search.get("storage", "") else ""
    return f"latentforge sweep --resume {folder}{storage}"


def is_record(record: Any) -> bool:
    """Whether it is what we write. A member's name is the folder that it trains into: one that
    anybody has written must not lead elsewhere, so the names are those that its values give."""
    try:
        known = _is_search if "search" in record else _is_grid
        return (
            record["format"] == FORMAT
            and all(isinstance(record["base"].get(section, {}), dict) for section in SECTIONS)
            and all(isinstance(callback, dict) for callback in record["base"]["callbacks"])
            and {"status", "in_memory", "together", "report"} <= set(record)
            and all({"status", "error", "metrics"} <= set(m) for m in record["members"])
            and known(record)
        )
    except (TypeError, KeyError, AttributeError, UsageError):
        return False


def _is_grid(record: Mapping[str, Any]) -> bool:
    planned = members_of(record["grid"])
    return planned == [Member(m["name"], m["values"]) for m in record["members"]]


def _is_search(record: Mapping[str, Any]) -> bool:
    search, keys = record["search"], list(read_space(record["search"]["space"]))
    return (
        isinstance(search["trials"], int)
        and isinstance(search["seed"], int)
        and all(isinstance(search[key], str) for key in ("objective", "study", "storage", "folder"))
        and search["better"] in ("lower", "higher")
        and all(isinstance(m["metrics"].get("validation", {}), dict) for m in record["members"])
        and all(list(m["values"]) == keys for m in record["members"])
        and all(type(m["trial"]) is int for m in record["members"])
        and all(m["name"] == trial_name(m["trial"], m["values"]) for m in record["members"])
        and len({m["name"] for m in record["members"]}) == len(record["members"])
    )


def trial_name(number: int, values: Mapping[str, Any]) -> str:
    """The folder of a search's member, whose number is that of the trial in Optuna."""
    return name_of(str(number), values, digits=3)


def objective_value(search: Mapping[str, Any], member: Mapping[str, Any]) -> float | None:
    """A member's value of what a search optimizes; None where it is not done or not finite."""
    split, _, figure = str(search["objective"]).partition("/")
    value = member["metrics"].get(split, {}).get(figure)
    found = member["status"] == "done" and value is not None and math.isfinite(value)
    return float(value) if found else None
