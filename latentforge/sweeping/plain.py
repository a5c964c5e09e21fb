"""Values as sweep.json keeps them, so that whoever reads them trains the same: plain ones, and
paths that lead to one place from whatever folder. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from latentforge.config import RunConfig
from latentforge.drafting import Draft


def plain(value: Any) -> Any:
    """A value that Python was given as JSON has it: numpy's as Python's, a path as its text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return absolute(str(value))
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def plain_draft(draft: Draft) -> Draft:
    return replace(draft, values=plain(draft.values), callbacks=plain(draft.callbacks))


def absolute(text: str) -> str:
    """A path's text as the check of a configuration reads it."""
    return str(Path(text).expanduser().absolute())


def path_keys(config: RunConfig) -> set[str]:
    """The keys of the options that are paths: `data.root`."""
    parts = {"model": config.model, "loss": config.loss, "data": config.dataset}
    options = {section: part.options for section, part in parts.items() if part}
    return {key for section, given in options.items() for key in _paths_in(given, f"{section}.")}


def _paths_in(options: Any, prefix: str) -> Iterator[str]:
    for spec in fields(options):
        value = getattr(options, spec.name)
        if isinstance(value, Path):
            yield prefix + spec.name
        elif is_dataclass(value):
            yield from _paths_in(value, f"{prefix}{spec.name}.")


def rooted_draft(draft: Draft, configs: Sequence[RunConfig]) -> Draft:
    """The draft of these configurations with its paths absolute."""
    keys = {key for config in configs for key in path_keys(config)}
    callbacks = [
        _rooted(given, set(_paths_in(callback.options, "")))
        for given, callback in zip(draft.callbacks, configs[0].callbacks, strict=True)
    ]
    return replace(draft, values=_rooted(draft.values, keys), callbacks=callbacks)


def _rooted(values: Mapping[str, Any], keys: set[str], prefix: str = "") -> dict[str, Any]:
    found = dict(values)
    for key, value in values.items():
        if isinstance(value, Mapping):
            found[key] = _rooted(value, keys, f"{prefix}{key}.")
        elif prefix + key in keys and isinstance(value, str):
            found[key] = absolute(value)
    return found


def rooted_grid(
    grid: Mapping[str, Sequence[Any]], configs: Sequence[RunConfig]
) -> dict[str, list[Any]]:
    """The grid of these configurations with its paths absolute."""
    paths = {key for config in configs for key in path_keys(config)}
    return {
        key: [absolute(v) if key in paths and isinstance(v, str) else v for v in values]
        for key, values in grid.items()
    }
