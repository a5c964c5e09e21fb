"""Options of inference, which may be changed without a new training: section [sampler].

Must not import torch: faults of a request are reported before torch loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from latentforge.config.changes import flatten
from latentforge.config.request import read_toml
from latentforge.config.resolve import raise_faults, read_assignments, resolve_sampler
from latentforge.config.schema import RunConfig
from latentforge.config.validation import Faults, plain
from latentforge.plugins.registry import Registry

SAMPLER = "sampler"

Options = Sequence[str] | Mapping[str, Any]


def override_sampler(config: RunConfig, *requests: Options) -> RunConfig:
    """Return the configuration of a run whose model uses other inference options. Those that no
    request names are those of the run; a later request replaces an earlier one. Raises ConfigError
    with every fault."""
    faults = Faults()
    values: dict[str, Any] = {}
    for request in requests:
        if not isinstance(request, Mapping):
            request = [text.removeprefix(f"{SAMPLER}.") for text in request]
        values = merge(values, read_assignments(request, faults))
    if not values and not faults.lines:
        return config
    own = {} if config.sampler is None else plain(config.sampler)
    other = resolve_sampler(config.model.entry, merge(own, values), faults)
    raise_faults(faults)
    return replace(config, other_sampler=other)


def merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `one`, replaced by those of `other`; nested options are merged."""
    merged = dict(one)
    for key, value in other.items():
        nested = isinstance(value, Mapping) and isinstance(one.get(key), Mapping)
        merged[key] = merge(one[key], value) if nested else value
    return merged


def read_preset_sampler(registry: Registry, name: str | None) -> dict[str, Any]:
    """Return the section [sampler] of the preset of an explorer; empty without a preset."""
    if name is None:
        return {}
    section = read_toml(registry.get("presets", name).spec.path).get(SAMPLER)
    return dict(section or {})


def describe_sampler(config: RunConfig) -> dict[str, dict[str, Any]]:
    """What results say about the inference options: {"sampler": options}, or an empty dict for a
    model without any."""
    return {} if config.inference is None else {SAMPLER: plain(config.inference)}


def format_sampler(options: Mapping[str, Any]) -> str:
    """Format inference options as text: `steps=20, guidance.scale=2.0`."""
    return ", ".join(f"{key}={value}" for key, value in flatten(options).items())


def find_other_options(config: RunConfig) -> dict[str, Any]:
    """Return the inference options, flattened, whose values are not those of the run."""
    if config.other_sampler is None:
        return {}
    used, own = (flatten(plain(s)) for s in (config.other_sampler, config.sampler))
    return {key: value for key, value in used.items() if value != own[key]}


def note_other_sampler(config: RunConfig) -> list[str]:
    """Return a note for findings that were made with other inference options than the run's."""
    if not find_other_options(config):
        return []
    used, own = (format_sampler(plain(s)) for s in (config.other_sampler, config.sampler))
    return [f"inference options: {used}; those of the run are {own}"]
