"""Checks the specs that hooks yield: each fault names the field of the spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from latentforge.contracts import RANGES, DataSpec
from latentforge.specs import RESERVED, DatasetSpec, Kind, LossSpec, ModelSpec, PresetSpec, Spec

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def spec_faults(kind: Kind, spec: object) -> list[str]:
    """Return the faults of a spec that a hook of this kind returned; each names its field."""
    if not isinstance(spec, kind.spec):
        name = getattr(spec, "name", None)
        received = type(spec).__name__ + (f" {name!r}" if isinstance(name, str) else "")
        return [f"expected {kind.spec.__name__}, got {received}"]
    checks = (_text_faults, _call_faults, _capability_faults, _config_faults)
    return [fault for check in checks for fault in check(spec)]


def _text_faults(spec: Spec) -> Iterator[str]:
    if type(spec.name) is not str or not NAME.fullmatch(spec.name):
        yield f"name {spec.name!r} must consist of lower-case letters, digits, '-', '_' and '.'"
    for key in ("summary", "default_loss", "protocol"):
        value = getattr(spec, key, "")
        if not isinstance(value, str):
            yield f"{key} must be a string, not {value!r}"


def _call_faults(spec: Spec) -> Iterator[str]:
    for key in ("build", "load", "explore", "fetch"):
        value = getattr(spec, key, None)
        optional = key == "fetch" and value is None
        if hasattr(spec, key) and not callable(value) and not optional:
            yield f"{key} must be a function, not {value!r}"
    if isinstance(spec, PresetSpec) and not (
        isinstance(spec.path, Path | str) and Path(spec.path).is_file()
    ):
        yield f"path {str(spec.path)!r} is not a file"


def _capability_faults(spec: Spec) -> Iterator[str]:
    for key in ("provides", "needs"):
        value: object = getattr(spec, key, frozenset())
        may_be_function = isinstance(spec, LossSpec | ModelSpec) and callable(value)
        if not _is_names(value, Set) and not may_be_function:
            yield f"{key} must be a set of names, not {value!r}"
    ranges: object = getattr(spec, "ranges", None)
    names = set(ranges) if isinstance(ranges, Set) else set()
    if not (ranges is None or callable(ranges) or (names and names <= RANGES.keys())):
        yield f"ranges must be a set of {', '.join(RANGES)}, or a function, not {ranges!r}"
    for key in ("roles", "optional_roles"):
        roles: Any = getattr(spec, key, None) or {}
        if not isinstance(roles, Mapping) or not all(
            isinstance(role, str) and _is_names(needs, Set) for role, needs in roles.items()
        ):
            yield f"{key} must map names of roles to sets of capabilities, not {roles!r}"
    if not isinstance(example := getattr(spec, "example", None), DataSpec | None):
        yield f"example must be a DataSpec, not {example!r}"
    elif example and example.range not in RANGES.values():
        yield f"example.range must be one of {[*RANGES.values()]}, not {example.range!r}"
    if not isinstance(searches := getattr(spec, "searches", None), str | None):
        yield f"searches must be the name of an objective, not {searches!r}"
    if (better := getattr(spec, "better", "lower")) not in ("lower", "higher"):
        yield f"better must be 'lower' or 'higher', not {better!r}"
    splits = getattr(spec, "splits", None)
    is_valid = callable(splits) or (_is_names(splits, tuple) and splits)
    if isinstance(spec, DatasetSpec) and not is_valid:
        yield f"splits must be a tuple of names or a function, not {splits!r}"


def _config_faults(spec: Spec) -> Iterator[str]:
    yield from _options_faults(spec, "config", spec.config)
    inference: object = getattr(spec, "inference", None)
    if inference is not None:
        yield from _options_faults(spec, "inference", inference)


def _options_faults(spec: Spec, key: str, config: object) -> Iterator[str]:
    """The faults of a class of options, which is the field `key` of the spec."""
    if not isinstance(config, type) or not is_dataclass(config):
        yield f"{key} must be a dataclass (the class itself), not {config!r}"
        return
    parameters: Any = getattr(config, "__dataclass_params__")  # noqa: B009
    if not parameters.frozen:
        yield f"{key} {config.__name__} must be frozen: @dataclass(frozen=True)"
    for field in fields(config):
        if field.name in RESERVED.get(type(spec), ()):
            yield f"{key} {config.__name__}.{field.name}: LatentForge has an option of that name"
        if field.init and field.default is MISSING and field.default_factory is MISSING:
            yield f"{key} {config.__name__}.{field.name} has no default"


def _is_names(value: Any, container: type[Any]) -> bool:
    return isinstance(value, container) and all(isinstance(name, str) for name in value)
