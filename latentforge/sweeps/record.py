"""The content of sweep.json: creates new records and validates stored ones. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from latentforge._version import __version__
from latentforge.config.request import SECTIONS, Draft
from latentforge.config.schema import RunConfig
from latentforge.errors import UsageError
from latentforge.io.paths import quoted
from latentforge.io.redact import MASK, command_line
from latentforge.sweeps.grid import Member, create_members, member_name
from latentforge.sweeps.search_space import read_space

FORMAT = 1


def first_record(draft: Draft, members: Sequence[Member], **facts: Any) -> dict[str, Any]:
    """The sweep.json of a new sweep; all values must be JSON-compatible."""
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
    """The entry in sweep.json of a member that has not started."""
    return {
        "name": member.name,
        "values": dict(member.values),
        "status": "waiting",
        "error": "",
        "metrics": {},
        "alone_because": "",
        **facts,
    }


def resume_command(folder: Path, search: Mapping[str, Any]) -> str:
    """The command that resumes the sweep in `folder`; `search` is empty for a grid."""
    storage = " --storage URL" if MASK in search.get("storage", "") else ""
    return f"latentforge sweep --resume {quoted(folder)}{storage}"


def is_valid_record(record: Any) -> bool:
    """Whether a record is valid. The name of a member is also the name of its folder. Each name
    must follow from the member's values, so that a record from another source cannot select other
    folders."""
    try:
        is_valid = _is_valid_search if "search" in record else _is_valid_grid
        return (
            record["format"] == FORMAT
            and all(isinstance(record["base"].get(section, {}), dict) for section in SECTIONS)
            and all(isinstance(callback, dict) for callback in record["base"]["callbacks"])
            and {"status", "in_memory", "together", "report"} <= set(record)
            and all({"status", "error", "metrics"} <= set(m) for m in record["members"])
            and is_valid(record)
        )
    except (TypeError, KeyError, AttributeError, UsageError):
        return False


def _is_valid_grid(record: Mapping[str, Any]) -> bool:
    planned = create_members(record["grid"])
    return planned == [Member(m["name"], m["values"]) for m in record["members"]]


def _is_valid_search(record: Mapping[str, Any]) -> bool:
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
    """The folder name of a search's member; `number` is the number of the trial in Optuna."""
    return member_name(str(number), values, digits=3)


def objective_value(search: Mapping[str, Any], member: Mapping[str, Any]) -> float | None:
    """A member's value of the objective; None if it is not finite or if the member is not done."""
    split, _, metric = str(search["objective"]).partition("/")
    value = member["metrics"].get(split, {}).get(metric)
    valid = member["status"] == "done" and value is not None and math.isfinite(value)
    return float(value) if valid else None


def as_json(value: Any) -> Any:
    """Convert a value to JSON types: NumPy values to Python values, paths to absolute strings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [as_json(inner) for inner in value]
    if isinstance(value, Path):
        return make_path_absolute(str(value))
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def make_path_absolute(text: str) -> str:
    """Make a path absolute, in the same way as the validation of a configuration."""
    return str(Path(text).expanduser().absolute())


def path_keys(config: RunConfig) -> set[str]:
    """The keys of options that are paths, such as `data.root`."""
    parts = {"model": config.model, "loss": config.loss, "data": config.dataset}
    options = {section: part.options for section, part in parts.items() if part}
    found = {key for section, values in options.items() for key in _paths_in(values, f"{section}.")}
    return found | {f"roles.{role}" for role in config.roles}


def _paths_in(options: Any, prefix: str) -> Iterator[str]:
    for spec in fields(options):
        value = getattr(options, spec.name)
        if isinstance(value, Path):
            yield prefix + spec.name
        elif is_dataclass(value):
            yield from _paths_in(value, f"{prefix}{spec.name}.")


def make_draft_absolute(draft: Draft, configs: Sequence[RunConfig]) -> Draft:
    """Make the paths in a request absolute. `configs` show which of its options are paths."""
    keys = {key for config in configs for key in path_keys(config)}
    callbacks = [
        _make_absolute(options, set(_paths_in(callback.options, "")))
        for options, callback in zip(draft.callbacks, configs[0].callbacks, strict=True)
    ]
    return replace(draft, values=_make_absolute(draft.values, keys), callbacks=callbacks)


def _make_absolute(values: Mapping[str, Any], keys: set[str], prefix: str = "") -> dict[str, Any]:
    result = dict(values)
    for key, value in values.items():
        if isinstance(value, Mapping):
            result[key] = _make_absolute(value, keys, f"{prefix}{key}.")
        elif prefix + key in keys and isinstance(value, str):
            result[key] = make_path_absolute(value)
    return result


def make_grid_absolute(
    grid: Mapping[str, Sequence[Any]], configs: Sequence[RunConfig]
) -> dict[str, list[Any]]:
    """Make the paths in a grid absolute. `configs` show which of its keys are paths."""
    paths = {key for config in configs for key in path_keys(config)}
    return {
        key: [make_path_absolute(v) if key in paths and isinstance(v, str) else v for v in values]
        for key, values in grid.items()
    }
