"""Selects the measures, explorers and roles that a request names and that fit the model.

Must not import torch: faults of a request are reported before torch loads.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from latentforge.config.request import read_toml
from latentforge.config.resolve import (
    check_defaults,
    check_options,
    lacking,
    raise_faults,
    read_assignments,
)
from latentforge.config.schema import Component, RunConfig
from latentforge.config.validation import Faults, check
from latentforge.errors import PluginError, UsageError, did_you_mean
from latentforge.plugins.registry import Entry, Registry
from latentforge.plugins.requirements import KEY, check_requirements

log = logging.getLogger("latentforge")


def choose_measures(
    registry: Registry,
    config: RunConfig,
    classes: Sequence[str],
    names: Sequence[str] = (),
    options: Sequence[str] | Mapping[str, Any] = (),
) -> list[Component]:
    """The requested measures, or every default one that fits, with their options."""
    provides = config.model.entry.spec.provides
    entries = []
    if names:
        for name in names:
            entry = registry.get("measures", name)
            if entry in entries:  # named twice, perhaps once by its qualified name
                continue
            check_needs(entry, config.model.entry)
            if entry.spec.labels and not classes:
                raise UsageError(f"measure {entry.name!r} needs labels; the data has none")
            entries.append(entry)
    else:
        by_name: dict[str, Entry] = {}
        for entry in registry.entries("measures"):  # a built-in before others of its name
            spec = entry.spec
            fits = spec.needs <= provides and (classes or not spec.labels)
            if spec.default and fits and not spec.roles:
                by_name.setdefault(entry.name, entry)
        # built-ins first: if two compute the same metric, the later one is left out
        entries = sorted(by_name.values(), key=lambda entry: not entry.plugin.builtin)
    given = _by_component(options, [entry.name for entry in entries])
    chosen = []
    for entry in entries:
        try:
            check_defaults(entry)
        except PluginError as error:
            if names:
                raise
            log.warning("%s; the measure is skipped", error.message)
            continue
        options = check_options(entry.spec.config, given[entry.name], entry.name)
        chosen.append(Component(entry, options, unasked=not names))
    return chosen


def training_measures(
    registry: Registry, config: RunConfig, classes: Sequence[str], splits: Container[str]
) -> tuple[Component, list[Component]]:
    """The measure that `train.monitor` names, and all measures of a training run: it and the
    default ones that fit."""
    train = config.train
    registry.get("measures", "loss")  # must exist: it detects weights that are not finite
    if (train.monitor != "loss" or train.patience) and "validation" not in splits:
        raise UsageError(
            "train.monitor and train.patience need a validation split; the data has none",
            remedy="--set data.validation=0.1",
        )
    measures = choose_measures(registry, config, classes)
    [monitor] = choose_measures(registry, config, classes, [train.monitor])
    measures = [monitor if measure.entry is monitor.entry else measure for measure in measures]
    return monitor, measures if monitor in measures else [*measures, monitor]


def check_needs(entry: Entry, model: Entry) -> None:
    """Raise UsageError if the model lacks a capability that the component needs."""
    check_abilities(f"{entry.kind.singular} {entry.name!r}", entry.spec.needs, model)


def check_abilities(what: str, needs: Iterable[str], model: Entry) -> None:
    """Raise UsageError that names `what` if the model lacks one of its needs."""
    if lack := lacking(what, needs, model.spec):
        raise UsageError(lack)


def choose_explorer(
    registry: Registry,
    config: RunConfig,
    classes: Sequence[str],
    name: str,
    assignments: Sequence[str],
    options: Mapping[str, Any],
    preset: str | None,
) -> list[Component]:
    """The explorer, and its objective if it searches, with their options. Given options override
    those of the preset.

    The two share one namespace: `n=100` is the objective's if the explorer has no such option.
    """
    entry = registry.get("explorers", name)
    check_needs(entry, config.model.entry)
    faults = Faults()
    texts = [text.removeprefix(f"{entry.name}.") for text in assignments]  # the form in errors
    kept = read_explore_preset(registry, preset, entry) if preset else {}
    given = {**kept, **read_assignments(texts, faults), **options}
    chosen, beside = [], []
    if entry.spec.searches:
        objective = registry.get("objectives", str(given.pop("objective", entry.spec.searches)))
        theirs = [field.name for field in fields(objective.spec.config)]
        if isinstance(prefixed := given.get(objective.name), Mapping):  # the form in errors
            given = {**{k: v for k, v in given.items() if v is not prefixed}, **prefixed}
        taken = [field.name for field in fields(entry.spec.config)]
        if both := [key for key in taken if key in theirs]:
            raise PluginError(
                f"objective {objective.name!r} and explorer {name!r} both have {both[0]!r}",
                remedy=f"rename the option in plugin {objective.plugin.name}",
            )
        own = {key: given.pop(key) for key in theirs if key in given}
        owners = {
            field.name: other.name
            for other in registry.entries("objectives")
            if other is not objective
            for field in fields(other.spec.config)
        }
        for key in [key for key in given if key in owners and key not in taken]:
            faults.add(f"{objective.name}.{key}", f"is an option of objective {owners[key]!r}")
            del given[key]
        chosen = [(objective, check(objective.spec.config, own, objective.name, faults))]
        beside = ["objective", *theirs]
    checked = check(entry.spec.config, given, entry.name, faults, beside=beside)
    raise_faults(faults)
    found = [Component(*pair) for pair in [(entry, checked), *chosen]]
    for part in found:
        if part.entry.spec.labels and not classes:
            what = f"{part.entry.kind.singular} {part.name!r}"
            raise UsageError(f"{what} needs labels; the data of the run has none")
    return found


def read_explore_preset(registry: Registry, name: str, explorer: Entry) -> dict[str, Any]:
    """The section [explore] of a preset. Raises UsageError if it is not for this explorer,
    PluginError if a plugin that it requires is missing."""
    path = registry.get("presets", name).spec.path
    content = read_toml(path)
    check_requirements(content.get(KEY, []), str(path))
    section = dict(content.get("explore") or {})
    if section.pop("name", None) != explorer.name:
        raise UsageError(
            f"preset {name!r} is not for explorer {explorer.name!r}",
            remedy="`latentforge list presets` shows the purpose of each preset",
        )
    return section


def check_roles(entries: Sequence[Entry], models: Mapping[str, Entry]) -> None:
    """Raise UsageError unless each role is known to the entries, its model fits, and no required
    role is missing."""
    wanted: dict[str, set[str]] = {}
    for entry in entries:
        optional = getattr(entry.spec, "optional_roles", None) or {}
        for role, needs in {**(entry.spec.roles or {}), **optional}.items():
            wanted.setdefault(role, set()).update(needs)
    for role, model in models.items():
        if role not in wanted:
            names = " and ".join(repr(entry.name) for entry in entries[:3])
            names += f" and {len(entries) - 3} more" if len(entries) > 3 else ""
            raise UsageError(
                f"no role {role!r}; roles of {entries[0].kind.singular} {names}: "
                f"{', '.join(sorted(wanted)) or 'none'}",
                remedy=did_you_mean(role, list(wanted)),
            )
        if missing := sorted(wanted[role] - set(model.spec.provides)):
            raise UsageError(
                f"role {role!r} needs {', '.join(missing)}; the model of its run is {model.name!r}"
            )
    for entry in entries:
        for role in entry.spec.roles or {}:
            if role not in models:
                raise UsageError(
                    f"{entry.kind.singular} {entry.name!r} needs a run for role {role}",
                    remedy=f"--with {role}=RUN",
                )


def _by_component(
    options: Sequence[str] | Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Options by measure, from `measure.key=value` texts or from a mapping measure -> options."""
    if isinstance(options, Mapping):
        if unknown := [name for name in options if name not in names]:
            hint = did_you_mean(unknown[0], names) or f"measures are {', '.join(names)}"
            raise UsageError(
                f"options for {unknown[0]!r}, which is not a requested measure; {hint}"
            )
        return {name: options.get(name, {}) for name in names}
    sorted_out: dict[str, list[str]] = {name: [] for name in names}
    for text in options:
        name, dot, rest = text.partition(".")
        if not dot or name not in sorted_out:
            hint = did_you_mean(name, names) or f"measures are {', '.join(names)}"
            raise UsageError(f"--set {text}: write MEASURE.key=VALUE; {hint}")
        sorted_out[name].append(rest)
    return sorted_out
