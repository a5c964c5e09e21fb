"""The members of a grid: their values, names and configurations. Torch-free."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentforge.config.request import SECTIONS, Draft, set_nested, toml_value
from latentforge.config.resolve import resolve
from latentforge.config.schema import DataConfig, RunConfig, TrainConfig
from latentforge.config.suggestions import has_field
from latentforge.errors import ConfigError, UsageError, did_you_mean
from latentforge.plugins.registry import Registry

MAX_NAME_LENGTH = 80  # maximum length of a member's name, which is also its folder's name
MAX_MEMBERS = 10_000  # a grid with more members is assumed to be a mistake


@dataclass(frozen=True)
class Member:
    """One run of a sweep: the name of its folder, and its values of the varied keys."""

    name: str
    values: Mapping[str, Any]


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Parse `section.key=[VALUE, ...]` strings. Raises ConfigError with every fault."""
    grid: dict[str, list[Any]] = {}
    faults = []
    for text in texts:
        key, equals, value_text = text.partition("=")
        key, values = key.strip(), toml_value(value_text)
        if not equals or not isinstance(values, list):
            faults.append(
                f"--grid {text}: write section.key=[VALUE, ...], as in train.seed=[0, 1] or, with "
                'quotes around strings, model.name=["ae", "vae"]'
            )
        elif key in grid:
            faults.append(f"--grid {text}: {key} is given twice")
        else:
            grid[key] = values
    if faults:
        raise ConfigError("the grid cannot be read", details=faults)
    return grid


def create_members(grid: Mapping[str, Sequence[Any]]) -> list[Member]:
    """Create a member for each combination of values; the last key varies fastest. Raises
    ConfigError with every fault."""
    faults = [
        fault
        for key, values in grid.items()
        for fault in find_key_faults(key) or find_value_faults(key, values)
    ]
    if not grid:
        raise UsageError(
            "a sweep needs at least one key to vary", hint="--grid 'train.seed=[0, 1, 2]'"
        )
    if faults:
        raise ConfigError("the grid cannot be used", details=faults)
    products = itertools.islice(itertools.product(*grid.values()), MAX_MEMBERS + 1)
    combinations = [dict(zip(grid, values, strict=True)) for values in products]
    if len(combinations) > MAX_MEMBERS:
        raise UsageError(f"the grid has more than {MAX_MEMBERS} members", hint="give fewer values")
    width = len(str(len(combinations)))
    return [
        Member(member_name(f"{number:0{width}d}", values), values)
        for number, values in enumerate(combinations, 1)
    ]


def find_key_faults(key: str) -> list[str]:
    """The faults of a key that can be found without knowing the components."""
    section, *path = key.split(".")
    if section not in SECTIONS:
        hint = did_you_mean(section, SECTIONS) or f"sections are {', '.join(SECTIONS)}"
        if not path:
            hint = f"write section.{key}, as in model.{key}; {hint}"
        configs = {"train": TrainConfig, "data": DataConfig}
        if keys := [f"{name}.{key}" for name, config in configs.items() if has_field(config, key)]:
            hint = f"write {' or '.join(keys)}"
        return [f"{key}: no such section; {hint}"]
    if section == "sampler":
        command = f"latentforge evaluate RUN --set {key}=VALUE"
        return [f"{key}: does not change the training; train one run, and then `{command}`"]
    if not path or not all(path):
        return [f"{key}: write section.key, as in loss.beta"]
    return []


def find_loss_changes(keys: Collection[str], base: Mapping[str, Any]) -> list[str]:
    """Return the keys that change the loss, which makes the loss values of members incomparable.
    `base` contains the settings that all members have in common, by section."""
    changed = [key for key in keys if key.startswith("loss.")]
    if "model.name" in keys and "name" not in base.get("loss", {}):
        changed.append("model.name, which determines the default loss")
    return changed


def find_value_faults(key: str, values: Any) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        return [f"{key}: must be a list with at least one value, got {values!r}"]
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    twice = len({*texts}) < len(texts)
    return [f"{key}: the list contains a value twice: {values!r}"] if twice else []


def member_name(number: str, values: Mapping[str, Any], digits: int = 6) -> str:
    """A member's name, such as `03-beta=4-seed=1`, which is a valid folder name on every system."""
    pairs = ((key.rpartition(".")[2], value) for key, value in values.items())
    text = "-".join(f"{key}={_format_value(value, digits)}" for key, value in pairs)
    plain = re.sub(r"[^A-Za-z0-9._=+-]+", "_", f"{number}-{text}")
    return plain[:MAX_NAME_LENGTH].rstrip("._-")


def _format_value(value: Any, digits: int) -> str:
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name  # parent folders would push the differing part past the limit
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def draft_member(base: Draft, member: Member, origin: str = "the grid") -> Draft:
    """The request of a member: the base, overridden by the member's values."""
    draft = copy.deepcopy(base)
    # names first: naming a component drops the options of the previous component
    for key, value in sorted(member.values.items(), key=lambda pair: not pair[0].endswith(".name")):
        section, *path = key.split(".")
        draft.origins[key] = origin
        if path == ["name"]:
            draft.select(section, value, origin)
        elif not set_nested(draft.values.setdefault(section, {}), path, copy.deepcopy(value)):
            draft.faults.append(f"{key}: {key.rpartition('.')[0]} is not a table")
    return draft


def resolve_all(
    base: Draft, members: Sequence[Member], registry: Registry, *, in_memory: bool
) -> list[RunConfig]:
    """Resolve the configuration of each member. Raises ConfigError with every distinct fault."""
    configs: list[RunConfig] = []
    faults: dict[str, str] = {}  # fault -> the first member that has it
    for member in members:
        try:
            configs.append(resolve(draft_member(base, member), registry, in_memory=in_memory))
        except ConfigError as error:
            for line in error.details:
                faults.setdefault(line, member.name)
    if faults:
        raise ConfigError(
            "members of the sweep cannot be trained",
            details=[f"{line} (member {name})" for line, name in faults.items()],
        )
    return configs
