"""The space of a search: `log(1e-4, 1e-2)`, `uniform(0.5, 8)`, `int(2, 32)` or `[32, 64, 128]` for
each key. Imports neither torch nor Optuna; values are requested from Optuna's trial objects.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentforge.config.request import Draft, toml_value
from latentforge.config.resolve import resolve
from latentforge.config.schema import RunConfig
from latentforge.errors import ConfigError, UsageError
from latentforge.io.paths import quoted
from latentforge.plugins.registry import Registry
from latentforge.sweeps.grid import Member, draft_member, find_key_faults, find_value_faults

USAGE = "write log(LOW, HIGH), uniform(LOW, HIGH), int(LOW, HIGH) or [VALUE, ...]"
MAX_INTEGER = 2**53  # integers up to here are exact as floats, which Optuna uses
MAX_NAME_COMBINATIONS = 64  # maximum combinations of component names checked before a search


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`: integers (int), uniform floats, or log-uniform floats (log)."""

    kind: str
    low: float
    high: float

    def as_json(self) -> str:
        return f"{self.kind}({self.low!r}, {self.high!r})"

    def probes(self) -> list[Any]:
        """Values that must be valid if all values are to be valid."""
        return [self.low, self.high]

    def suggest(self, trial: Any, key: str) -> Any:
        if self.kind == "int":
            return trial.suggest_int(key, int(self.low), int(self.high))
        return trial.suggest_float(key, self.low, self.high, log=self.kind == "log")


@dataclass(frozen=True)
class Choice:
    """One value of a list. Optuna stores the values as JSON, because it does not accept lists."""

    values: tuple[Any, ...]

    def as_json(self) -> list[Any]:
        return list(self.values)

    def probes(self) -> list[Any]:
        return list(self.values)

    def suggest(self, trial: Any, key: str) -> Any:
        stored = trial.suggest_categorical(key, [json.dumps(value) for value in self.values])
        return from_stored(stored)


Space = Mapping[str, Range | Choice]


def from_stored(stored: Any) -> Any:
    """Convert a value that Optuna stores to the value to train with: a choice is a JSON string."""
    return json.loads(stored) if isinstance(stored, str) else stored


def read_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `section.key=RANGE` strings. Raises ConfigError with every fault."""
    space: dict[str, Any] = {}
    faults = []
    for text in texts:
        key, equals, range_text = text.partition("=")
        key, value = key.strip(), toml_value(range_text)
        if not equals or not key:
            faults.append(
                f"--space {text}: write section.key=RANGE, as in train.lr=log(1e-4, 1e-2)"
            )
        elif key in space:
            faults.append(f"--space {text}: {key} is given twice")
        else:
            space[key] = value if isinstance(value, list) else range_text
    if faults:
        raise ConfigError("the space cannot be read", details=faults)
    return space


def read_space(given: Mapping[str, Any]) -> dict[str, Range | Choice]:
    """Parse strings into ranges and lists into choices, by key. Raises ConfigError with every
    fault."""
    if not given:
        raise UsageError(
            "a search needs at least one key to vary", hint="--space 'train.lr=log(1e-4, 1e-2)'"
        )
    space: dict[str, Range | Choice] = {}
    faults = []
    for key, value in given.items():
        if key_errors := find_key_faults(key):
            faults += key_errors
        elif key.startswith("data."):
            faults.append(f"{key}: metrics on different data are not comparable; use --grid")
        elif isinstance(value, str):
            parsed = read_range(value)
            if isinstance(parsed, str):
                faults.append(f"{key}={value.strip()}: {parsed}")
            else:
                space[key] = parsed
        elif key_errors := find_value_faults(key, value):
            faults += key_errors
        else:
            space[key] = Choice(tuple(value))
    if faults:
        raise ConfigError("the space cannot be used", details=faults)
    return space


def read_range(text: str) -> Range | str:
    """Parse a range. If the text is invalid, returns a message that describes the error."""
    match = re.fullmatch(r"\s*(\w+)\s*\(([^(),]+),([^(),]+)\)\s*", text)
    if match is None or match[1] not in ("log", "uniform", "int"):
        return USAGE
    kind, *ends = match.groups()
    try:
        low, high = (int(end) if kind == "int" else float(end) for end in ends)
    except ValueError:
        return f"{kind} needs two {'integers' if kind == 'int' else 'numbers'}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{kind} needs two finite numbers"
    if not math.isfinite(high - low) or (kind == "int" and max(-low, high) > MAX_INTEGER):
        return "the range is too large"
    if low >= high:
        return f"low must be less than high, got {low!r} and {high!r}"
    if kind == "log" and low <= 0:
        return f"log needs numbers above 0, got {low!r}"
    return Range(kind, low, high)


def check_space(base: Draft, space: Space, registry: Registry, *, in_memory: bool) -> RunConfig:
    """Return a valid configuration from the space. Raises ConfigError with every fault if a key or
    one of its values is invalid in every checked combination. Members with other invalid
    combinations fail during the search."""
    results: list[tuple[dict[str, int], Sequence[str]]] = []  # index of each key's value; faults
    valid: list[RunConfig] = []
    for indices in _combinations(space):
        values = {key: space[key].probes()[index] for key, index in indices.items()}
        draft = draft_member(base, Member("", values), "the space")
        try:
            valid.append(resolve(draft, registry, in_memory=in_memory))
            results.append((indices, ()))
        except ConfigError as error:
            results.append((indices, error.details))
    faults = {}
    for key, dimension in space.items():
        for index in range(len(dimension.probes())):
            line_lists = [
                [line for line in lines if line.startswith(tuple(key + end for end in ": [."))]
                for indices, lines in results
                if indices[key] == index
            ]
            if line_lists and all(line_lists):  # the value is invalid in every combination
                faults.update(dict.fromkeys(line_lists[0]))
    if not faults and not valid:
        faults = dict.fromkeys(results[0][1])
    if faults or not valid:
        raise ConfigError("the space cannot be used", details=faults)
    return valid[0]


def _combinations(space: Space) -> Iterator[dict[str, int]]:
    """Yield combinations that together contain every probed value of every key. Component names are
    combined with each other, because each component has its own options; the other keys are varied
    one at a time."""
    names = [key for key in space if key.endswith(".name")]
    choices = [range(len(space[key].probes())) for key in names]
    for combination in itertools.islice(itertools.product(*choices), MAX_NAME_COMBINATIONS):
        base = {**dict.fromkeys(space, 0), **dict(zip(names, combination, strict=True))}
        yield base
        for key in space:
            if key not in names:
                yield from ({**base, key: i} for i in range(1, len(space[key].probes())))


def check_kind(grid: Any, search: int | None, **search_options: Any) -> None:
    """Raise UsageError for a grid together with a search, for search options without a search, and
    for a search without trials."""
    if grid and search is not None:
        options = [f"{key}={json.dumps(values, default=str)}" for key, values in grid.items()]
        spaces = " ".join(f"--space {quoted(option)}" for option in options)
        raise UsageError(
            "a sweep is a grid or a search, not both",
            hint=f"for a search, {spaces} instead of --grid",
        )
    unexpected = [name for name, value in search_options.items() if value]
    if search is None and unexpected:
        raise UsageError(
            f"without a search, {' and '.join(unexpected)} cannot be used",
            hint="--search 20, for 20 trials",
        )
    if search is not None and search < 1:
        raise UsageError(f"a search needs at least 1 trial, got {search}")
