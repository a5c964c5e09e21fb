"""The space of a search: `log(1e-4, 1e-2)`, `uniform(0.5, 8)`, `int(2, 32)` or `[32, 64, 128]` for
each key. Torch-free; does not import Optuna, but asks its trials for values.
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
from latentforge.plugins.registry import Registry
from latentforge.sweeps.grid import Member, draft_member, key_faults, list_faults

WRITE = "write log(LOW, HIGH), uniform(LOW, HIGH), int(LOW, HIGH) or [VALUE, ...]"
LARGEST = 2**53  # integers up to here are exact as floats, which Optuna uses
MOST_NAMES = 64  # combinations of component names that are checked before a search starts


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

    def value_of(self, told: Any) -> Any:
        """The value to train with, from the value that Optuna stores."""
        return told


@dataclass(frozen=True)
class Choice:
    """One value of a list. Optuna stores the values as JSON, because it does not accept lists."""

    values: tuple[Any, ...]

    def as_json(self) -> list[Any]:
        return list(self.values)

    def probes(self) -> list[Any]:
        return list(self.values)

    def suggest(self, trial: Any, key: str) -> Any:
        told = trial.suggest_categorical(key, [json.dumps(value) for value in self.values])
        return self.value_of(told)

    def value_of(self, told: Any) -> Any:
        return json.loads(told)


Space = Mapping[str, Range | Choice]


def read_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `section.key=RANGE` texts. Raises ConfigError with every fault."""
    given: dict[str, Any] = {}
    faults = []
    for text in texts:
        key, equals, said = text.partition("=")
        key, value = key.strip(), toml_value(said)
        if not equals or not key:
            faults.append(
                f"--space {text}: write section.key=RANGE, as in train.lr=log(1e-4, 1e-2)"
            )
        elif key in given:
            faults.append(f"--space {text}: {key} is given twice")
        else:
            given[key] = value if isinstance(value, list) else said
    if faults:
        raise ConfigError("the space cannot be read", details=faults)
    return given


def read_space(given: Mapping[str, Any]) -> dict[str, Range | Choice]:
    """Parse texts and lists into ranges and choices by key. ConfigError contains every fault."""
    if not given:
        raise UsageError(
            "a search needs at least one key to vary", remedy="--space 'train.lr=log(1e-4, 1e-2)'"
        )
    space: dict[str, Range | Choice] = {}
    faults = []
    for key, value in given.items():
        if found := key_faults(key):
            faults += found
        elif key.startswith("data."):
            faults.append(f"{key}: metrics on different data are not comparable; use --grid")
        elif isinstance(value, str):
            read = read_range(value)
            if isinstance(read, str):
                faults.append(f"{key}={value.strip()}: {read}")
            else:
                space[key] = read
        elif found := list_faults(key, value) or plain_faults(key, value):
            faults += found
        else:
            space[key] = Choice(tuple(value))
    if faults:
        raise ConfigError("the space cannot be used", details=faults)
    return space


def plain_faults(key: str, values: Sequence[Any]) -> list[str]:
    try:
        json.dumps(list(values))
    except (TypeError, ValueError) as error:
        return [f"{key}: values must be numbers, strings, booleans or lists of them; {error}"]
    return []


def read_range(text: str) -> Range | str:
    """The range that a text describes, or a message that says what is wrong with the text."""
    match = re.fullmatch(r"\s*(\w+)\s*\(([^(),]+),([^(),]+)\)\s*", text)
    if match is None or match[1] not in ("log", "uniform", "int"):
        return WRITE
    kind, *ends = match.groups()
    try:
        low, high = (int(end) if kind == "int" else float(end) for end in ends)
    except ValueError:
        return f"{kind} needs two {'integers' if kind == 'int' else 'numbers'}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{kind} needs two finite numbers"
    if not math.isfinite(high - low) or (kind == "int" and max(-low, high) > LARGEST):
        return "the range is too large"
    if low >= high:
        return f"low must be less than high, got {low!r} and {high!r}"
    if kind == "log" and low <= 0:
        return f"log needs numbers above 0, got {low!r}"
    return Range(kind, low, high)


def check_space(base: Draft, space: Space, registry: Registry, *, in_memory: bool) -> RunConfig:
    """A valid configuration from the space. Raises ConfigError with every fault if a key or one of
    its values is valid in none; other invalid combinations are left for the search to find."""
    tried: list[tuple[dict[str, int], list[str]]] = []  # index of each key's value; faults
    fits: RunConfig | None = None
    for places in _places(space):
        values = {key: space[key].probes()[place] for key, place in places.items()}
        draft = draft_member(base, Member("", values), "the space")
        try:
            config = resolve(draft, registry, in_memory=in_memory)
        except ConfigError as error:
            tried.append((places, list(error.details)))
        else:
            fits = fits or config
            tried.append((places, []))
    faults = {}
    for key, dimension in space.items():
        for place in range(len(dimension.probes())):
            seen = [
                [line for line in lines if line.startswith(tuple(key + end for end in ": [."))]
                for places, lines in tried
                if places[key] == place
            ]
            if seen and all(seen):  # the value is invalid in every combination
                faults.update(dict.fromkeys(seen[0]))
    if not faults and fits is None:
        faults = dict.fromkeys(tried[0][1])
    if faults or fits is None:
        raise ConfigError("the space cannot be used", details=faults)
    return fits


def _places(space: Space) -> Iterator[dict[str, int]]:
    """Combinations that together contain every probed value of every key: all combinations of
    component names, since each component has its own options; the other keys one at a time."""
    names = [key for key in space if key.endswith(".name")]
    numbers = [range(len(space[key].probes())) for key in names]
    for chosen in itertools.islice(itertools.product(*numbers), MOST_NAMES):
        first = {**dict.fromkeys(space, 0), **dict(zip(names, chosen, strict=True))}
        yield first
        for key in space:
            if key not in names:
                yield from ({**first, key: n} for n in range(1, len(space[key].probes())))


def check_kind(grid: Any, search: int | None, **of_a_search: Any) -> None:
    """Raise UsageError for a grid with a search, and for a search's options without a search."""
    if grid and search is not None:
        raise UsageError(
            "a sweep is a grid or a search, not both",
            remedy="for a search, --space 'loss.beta=[1, 2, 4]' instead of --grid",
        )
    given = [name for name, value in of_a_search.items() if value]
    if search is None and given:
        raise UsageError(
            f"{' and '.join(given)}: only for a search",
            remedy="--search 20, for 20 trials",
        )
