"""Checks that components support the range of the data, before torch loads where it is known.

Must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

from latentforge.config.schema import Component, DataConfig, find_range_fault
from latentforge.config.validation import Faults, vary_options
from latentforge.contracts import RANGES
from latentforge.errors import UsageError
from latentforge.plugins.registry import Entry, Registry
from latentforge.specs import ModelSpec

TEXTS = {
    "unit": "values from 0 to 1",
    "signed": "values from -1 to 1",
    "counts": "whole numbers from 0",
    "any": "any real numbers",
}


def supported_ranges(entry: Entry, options: Any) -> Set[str]:
    """Return the names of the ranges that a component supports with these options."""
    ranges = getattr(entry.spec, "ranges", None)
    if callable(ranges):
        ranges = ranges(options)
    if ranges is not None:
        return frozenset(ranges)
    # a decoder for another range must say so, because its images would be wrong without an error
    decodes = isinstance(entry.spec, ModelSpec) and "decode" in entry.provides
    return frozenset({"unit"} if decodes else RANGES)


def describe_unsupported(part: Component, values: str) -> str:
    """Return a message if a component does not support data of the range `values`, or else an empty
    string."""
    ranges = supported_ranges(part.entry, part.options)
    if values in ranges:
        return ""
    wanted = " or ".join(f"{TEXTS[name]} ({name})" for name in RANGES if name in ranges)
    what = f"{part.entry.kind.singular} {part.name!r}"
    return f"{what} supports {wanted}, but data.range is {values}: {TEXTS[values]}"


def suggest_changes(registry: Registry, part: Component, values: str) -> str:
    """Return the options or the models that support data of the range `values`, or the range that
    the component supports if the data has the usual one."""
    kind = part.entry.kind.singular
    hints = [f"--set {kind}.{name}={value}" for name, value in find_options(part, values)]
    if values == "unit":
        ranges = supported_ranges(part.entry, part.options)
        hints = [f"--set data.range={name}" for name in RANGES if name in ranges] + hints
    if kind == "model":
        others = [
            entry.name
            for entry in registry.entries("models")
            if entry.provides >= part.entry.provides
            and values in supported_ranges(entry, entry.spec.config())
        ]
        hints += [f"a model that supports it: {', '.join(others)}"] if others else []
    return " or ".join(hints)


def find_options(part: Component, values: str) -> Iterator[tuple[str, str]]:
    """Yield each option and value with which the component supports the range `values`: those that
    support the fewest other ranges, as they are made for it."""
    found = []
    for name, choice, options in vary_options(part.options):
        ranges = supported_ranges(part.entry, options)
        if values in ranges:
            found.append((len(ranges), name, choice))
    fewest = min((count for count, _, _ in found), default=0)
    yield from ((name, choice) for count, name, choice in found if count == fewest)


def list_range_options(data: DataConfig, parts: Sequence[Component] = ()) -> dict[str, str]:
    """Return the ranges of values that are kept as they are stored, which may replace data.range,
    each with the options of the components `parts` that support it. Ranges that a component does
    not support with any option are left out, and all if other options of [data] need the unit
    range."""
    if data.requested_range not in (None, "unit") or find_range_fault(data, "counts"):
        return {}
    found = {}
    for values in ("counts", "any"):
        unfit = [part for part in parts if describe_unsupported(part, values)]
        options = [(part, next(find_options(part, values), None)) for part in unfit]
        if all(option for _, option in options):
            found[values] = " ".join(
                f"--set {part.entry.kind.singular}.{option[0]}={option[1]}"
                for part, option in options
                if option
            )
    return found


def add_range_faults(
    registry: Registry, parts: Sequence[Component | None], values: str, faults: Faults
) -> None:
    """Add a fault for each component that does not support the range that data.range requests.
    Components without valid options are None or have none."""
    for part in parts:
        if part is None or part.options is None:
            continue
        if message := describe_unsupported(part, values):
            hint = suggest_changes(registry, part, values)
            faults.add("data.range", f"{message}; try {hint}" if hint else message)


def check_range(registry: Registry, parts: Sequence[Component], values: str) -> None:
    """Raise UsageError if a component does not support data of the range `values`."""
    for part in parts:
        if message := describe_unsupported(part, values):
            raise UsageError(message, hint=suggest_changes(registry, part, values))


def from_json(bounds: Sequence[float | None] | None) -> tuple[float, float] | None:
    """Return the range that `to_json` has written."""
    if bounds is None:
        return None
    low, high = (math.inf if value is None else float(value) for value in bounds)
    return low, high


def to_json(bounds: tuple[float, float] | None) -> list[float | None] | None:
    """Return a range as JSON values, in which no bound is null."""
    return bounds and [None if value == math.inf else value for value in bounds]
