"""Selects the measures, explorers and roles that a request names and that fit the model.

Must not import torch: faults of a request are reported before torch loads.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from latentforge.config.capabilities import check_needs, suggest_models
from latentforge.config.condition import CONDITIONAL, WITHOUT_LABELS, read_condition
from latentforge.config.data_range import check_range, describe_unsupported
from latentforge.config.request import read_toml
from latentforge.config.resolve import check_defaults, check_options, raise_faults, read_assignments
from latentforge.config.schema import Component, RunConfig
from latentforge.config.suggestions import as_list, has_field
from latentforge.config.validation import Faults, check, find_factor_names
from latentforge.contracts import DataSpec, Factor
from latentforge.errors import ConfigError, PluginError, UsageError, did_you_mean
from latentforge.io.paths import quoted
from latentforge.plugins.registry import Entry, Registry
from latentforge.plugins.requirements import KEY, check_requirements
from latentforge.specs import Role, as_role

log = logging.getLogger("latentforge")
DECLARE = "add an attribute `likelihood` to the loss, such as latentforge.latent.Bernoulli()"


def select_measures(
    registry: Registry,
    config: RunConfig,
    classes: Sequence[str],
    names: Sequence[str] = (),
    options: Sequence[str] | Mapping[str, Any] = (),
    factors: Collection[Factor] | None = (),
    data_range: str = "unit",
) -> list[Component]:
    """Return the requested measures, or the default measures that fit the model and the data, with
    options. `classes` and `factors` are those of the data, and `data_range` names its range. The
    factors are None if they are not known yet."""
    if isinstance(names, str):
        raise UsageError(f"measures is {names!r}, not a list", hint=f"measures=[{names!r}]")
    provides = config.model.entry.provides
    entries = []
    if names:
        for name in names:
            entry = registry.get("measures", name)
            if entry in entries:  # named twice, perhaps once by its qualified name
                continue
            check_needs(registry, entry, config.model.entry)
            if lacking := find_lacking(entry.spec, classes, factors):
                raise UsageError(
                    f"measure {entry.name!r} needs {lacking}; the data has none",
                    hint=f"choose other measures, or evaluate a run on data with {lacking}",
                )
            entries.append(entry)
    else:
        by_name: dict[str, Entry] = {}
        for entry in registry.entries("measures"):  # a built-in comes first
            spec = entry.spec
            compatible = spec.needs <= provides and not find_lacking(spec, classes, factors)
            if spec.default and compatible and not spec.roles:
                by_name.setdefault(entry.name, entry)
        # built-ins first: if two measures compute the same metric, the later one is skipped
        entries = sorted(by_name.values(), key=lambda entry: not entry.plugin.builtin)
    options_by_name = _group_options(registry, options, entries)
    selected = []
    for entry in entries:
        try:
            check_defaults(entry)
        except PluginError as error:
            if names:
                raise
            log.warning("%s; the measure is skipped", error.message)
            continue
        options = check_options(entry.spec.config, options_by_name[entry.name], entry.name)
        measure = Component(entry, options, is_default=not names)
        if names:
            check_range(registry, [measure], data_range)
            check_factor_names(measure, factors)
        elif describe_unsupported(measure, data_range) or list_unknown_factors(measure, factors):
            continue
        selected.append(measure)
    return selected


def training_measures(
    registry: Registry, config: RunConfig, data: DataSpec, splits: Container[str]
) -> tuple[Component, list[Component]]:
    """Return the measure that `train.monitor` names, and all measures of a training run: this one
    and the default measures that fit the model."""
    train = config.train
    registry.get("measures", "loss")  # must exist: it detects weights that are not finite
    if (train.monitor != "loss" or train.patience) and "validation" not in splits:
        raise UsageError(
            "train.monitor and train.patience need a validation split; the data has none",
            hint="--set data.validation=0.1",
        )
    about: dict[str, Any] = {"factors": data.factors, "data_range": data.range_name}
    measures = select_measures(registry, config, data.classes, **about)
    [monitor] = select_measures(registry, config, data.classes, [train.monitor], **about)
    measures = [monitor if measure.entry is monitor.entry else measure for measure in measures]
    return monitor, measures if monitor in measures else [*measures, monitor]


@dataclass(frozen=True)
class SelectedExplorer:
    """An explorer and, if it searches, its objective, with their options. `condition` is the number
    of a class, or None."""

    explorer: Component
    objective: Component | None
    condition: int | None

    @property
    def components(self) -> list[Component]:
        return [part for part in (self.explorer, self.objective) if part]

    @property
    def entries(self) -> list[Entry]:
        return [part.entry for part in self.components]


def fit_to_loss(
    measures: Sequence[Component], loss: Component, module: Any
) -> tuple[list[Component], str]:
    """Return the measures that fit the loss `module`, and a notice that names the others, or an
    empty string. A measure of a likelihood does not fit a loss that declares none: its metric would
    be in nats under a guess. Raises UsageError if such a measure was requested. There is no notice
    for a loss whose attribute `likelihood` is None."""
    declared = loss.call("reading the likelihood", getattr, module, "likelihood", ...)
    if declared is not None and declared is not ...:
        return [*measures], ""
    unfit = [measure for measure in measures if measure.entry.spec.likelihood]
    for measure in unfit:
        if not measure.is_default:
            raise UsageError(
                f"measure {measure.name!r} needs the likelihood p(x|z), which loss {loss.name!r} "
                "does not declare",
                hint=f"{DECLARE}, or choose other measures",
            )
    names = ", ".join(measure.name for measure in unfit)
    notice = f"loss {loss.name!r} declares no likelihood p(x|z); skipped measures: {names}"
    announced = unfit and declared is not None
    return [m for m in measures if m not in unfit], f"{notice}; {DECLARE}" if announced else ""


def fit_to_data(measures: Sequence[Component], data: DataSpec) -> tuple[list[Component], str]:
    """Return the measures that fit other data than that of the run, and a notice that names the
    others, or an empty string. Raises UsageError if a measure that does not fit was requested."""
    unfit = []
    for measure in measures:
        lacking = find_lacking(measure.entry.spec, data.classes, data.factors)
        if not measure.is_default:
            if lacking:
                raise UsageError(
                    f"measure {measure.name!r} needs {lacking}; the data has none",
                    hint=f"give data with {lacking}, or choose other measures",
                )
            check_factor_names(measure, data.factors)
        elif lacking or list_unknown_factors(measure, data.factors):
            unfit.append(measure)
    names = ", ".join(measure.name for measure in unfit)
    notice = f"the data has no labels or factors that these need; skipped measures: {names}"
    return [m for m in measures if m not in unfit], notice if unfit else ""


def select_explorer(
    registry: Registry,
    config: RunConfig,
    classes: Sequence[str],
    name: str,
    assignments: Sequence[str],
    options: Mapping[str, Any],
    preset: str | None,
    factors: Collection[Factor] | None = (),
    data_range: str = "unit",
) -> SelectedExplorer:
    """Return the explorer and, if it searches, its objective, with their options.
    `data_range` names the range of the data. `factors` is None if they are not known yet.

    Given options override those of the preset. Explorer and objective share one namespace: `n=100`
    is passed to the objective if the explorer has no option `n`.
    """
    entry = registry.get("explorers", name)
    check_needs(registry, entry, config.model.entry)
    faults = Faults()
    texts = [text.removeprefix(f"{entry.name}.") for text in assignments]  # errors use this form
    preset_values = read_explore_preset(registry, preset, entry) if preset else {}
    values = {**preset_values, **read_assignments(texts, faults), **options}
    condition = read_condition(
        values.pop("condition", None), classes, f"{entry.name}.condition", faults
    )
    chosen, other_keys = None, ["condition"]
    if entry.spec.searches:
        objective = registry.get("objectives", str(values.pop("objective", entry.spec.searches)))
        objective_keys = [f.name for f in fields(objective.spec.config)]
        if isinstance(nested := values.get(objective.name), Mapping):  # errors use this form
            values = {**{k: v for k, v in values.items() if v is not nested}, **nested}
        explorer_keys = [f.name for f in fields(entry.spec.config)]
        if shared_keys := [key for key in explorer_keys if key in objective_keys]:
            raise PluginError(
                f"objective {objective.name!r} and explorer {name!r} both have the option "
                f"{shared_keys[0]!r}",
                hint=f"rename the option in plugin {objective.plugin.name}",
            )
        objective_values = {key: values.pop(key) for key in objective_keys if key in values}
        owners = {
            f.name: other.name
            for other in registry.entries("objectives")
            if other is not objective
            for f in fields(other.spec.config)
        }
        for key in [key for key in values if key in owners and key not in explorer_keys]:
            faults.add(f"{objective.name}.{key}", f"is an option of objective {owners[key]!r}")
            del values[key]
        checked = check(objective.spec.config, objective_values, objective.name, faults)
        chosen = Component(objective, checked)
        other_keys += ["objective", *objective_keys]
    explorer_options = check(entry.spec.config, values, entry.name, faults, other_keys=other_keys)
    raise_faults(faults)
    selected = SelectedExplorer(Component(entry, explorer_options), chosen, condition)
    for part in selected.entries:
        if lacking := find_lacking(part.spec, classes, factors):
            owner = f"{part.kind.singular} {part.name!r}"
            hint = f"explore a run on data with {lacking}, or use another explorer"
            raise UsageError(f"{owner} needs {lacking}; the data of the run has none", hint=hint)
    check_range(registry, selected.components, data_range)
    for component in selected.components:
        check_factor_names(component, factors)
    return selected


def find_lacking(spec: Any, classes: Sequence[str], factors: Collection[Factor] | None) -> str:
    """Return what the spec of a component declares that it reads and the data does not have:
    "labels" or "factors"; empty if nothing is lacking. Labels are a factor."""
    if spec.labels and not classes:
        return "labels"
    needs_factors = getattr(spec, "factors", False)  # an objective reads none
    return "factors" if needs_factors and factors is not None and not (classes or factors) else ""


def check_factor_names(component: Component, factors: Collection[Factor] | None) -> None:
    """Raise UsageError if options name factors that the data does not have, unless its factors are
    not known yet."""
    if details := list_unknown_factors(component, factors):
        known = ", ".join(factor.name for factor in factors or ()) or "none"
        hint = f"choose one of the factors of the data: {known}"
        raise ConfigError("the data has no such factor", details=details, hint=hint)


def list_unknown_factors(component: Component, factors: Collection[Factor] | None) -> list[str]:
    """Return a line for each option that names a factor which the data does not have."""
    if factors is None:
        return []
    known = [factor.name for factor in factors]
    return [
        f"{component.name}.{key}: no factor {name!r}; "
        + (did_you_mean(name, known) or f"factors of the data: {', '.join(known) or 'none'}")
        for key, names in find_factor_names(component.options).items()
        for name in names
        if name not in known
    ]


def read_explore_preset(registry: Registry, name: str, explorer: Entry) -> dict[str, Any]:
    """Read the section [explore] of a preset. Raises UsageError if the preset is for another
    explorer, and PluginError if a plugin that it requires is missing."""
    path = registry.get("presets", name).spec.path
    content = read_toml(path)
    check_requirements(content.get(KEY, []), str(path))
    section = dict(content.get("explore") or {})
    if section.pop("name", None) != explorer.name:
        raise UsageError(
            f"preset {name!r} is not for explorer {explorer.name!r}",
            hint="`latentforge list presets` shows the purpose of each preset",
        )
    return section


def check_roles(registry: Registry, entries: Sequence[Entry], models: Mapping[str, Entry]) -> None:
    """Raise UsageError if a role is unknown, if a required one is missing, or if a model does
    not fit its role."""
    needs_by_role = merge_roles(entries)
    explores = any(entry.kind.plural in ("explorers", "objectives") for entry in entries)
    for role, model in models.items():
        if role not in needs_by_role:
            owners = [f"{entry.kind.singular} {entry.name!r}" for entry in entries[:3]]
            owners += [f"{len(entries) - 3} more"] if len(entries) > 3 else []
            raise UsageError(
                f"no role {role!r}; roles of {' and '.join(owners)}: "
                f"{', '.join(sorted(needs_by_role)) or 'none'}",
                hint=did_you_mean(role, list(needs_by_role)),
            )
        if missing := sorted(needs_by_role[role] - model.provides):
            raise UsageError(
                f"role {role!r} needs {', '.join(missing)}, which {model.name!r} does not provide",
                hint=suggest_run(registry, role, needs_by_role[role], explores=explores),
            )
    for entry in entries:
        for role in entry.spec.roles or {}:
            if role not in models:
                raise UsageError(
                    f"{entry.kind.singular} {entry.name!r} needs a run for role {role}",
                    hint=suggest_run(registry, role, needs_by_role[role], explores=explores),
                )


def merge_roles(entries: Iterable[Entry], *, optional: bool = True) -> dict[str, Role]:
    """Return the roles of components, without optional ones if `optional` is not set. A role of
    several components meets the conditions of all."""
    roles: dict[str, Role] = {}
    for entry in entries:
        others = (getattr(entry.spec, "optional_roles", None) or {}) if optional else {}
        for name, needs in {**(entry.spec.roles or {}), **others}.items():
            one, other = as_role(needs), roles.get(name, Role(same_data=False))
            roles[name] = Role(
                one | other,
                same_data=one.same_data or other.same_data,
                standardize=one.standardize or other.standardize,
            )
    return roles


def suggest_run(registry: Registry, role: str, needs: Role, *, explores: bool) -> str:
    """Return the option that gives a run for a role, with the models that it may have. Only
    explorers can give a conditional model a class, which must be one of the run."""
    has_class = explores and needs.same_data
    refused = () if has_class or WITHOUT_LABELS.issuperset(needs) else (CONDITIONAL,)
    models = suggest_models(registry, needs, refused) if needs else ""
    return f"--with {role}=RUN" + (f", where RUN is a run of {models}" if models else "")


def suggest_explorer_option(registry: Registry, name: str, value: str, words: Sequence[str]) -> str:
    """Return the assignment that sets an option with this name, if one of the explorers in `words`
    has it, or its objective; otherwise an empty string."""
    explorers = [entry for entry in registry.entries("explorers") if entry.name in words]
    if explorers and name == "condition":
        return f"--set {quoted(f'{name}={value}')}"
    objectives = {f"objective={entry.spec.searches}" for entry in explorers if entry.spec.searches}
    if objectives and (given := [word for word in words if word.startswith("objective=")]):
        objectives = set(given)
    entries = [e for e in registry.entries("objectives") if f"objective={e.name}" in objectives]
    for entry in (*explorers, *entries):
        if has_field(entry.spec.config, name):
            return f"--set {quoted(f'{name}={as_list(entry.spec.config, name, value)}')}"
    return ""


def _group_options(
    registry: Registry,
    options: Sequence[str] | Mapping[str, Any],
    measures: Sequence[Entry],
) -> dict[str, Any]:
    """Group options by measure, from `measure.key=value` strings or from a nested mapping."""
    names = [entry.name for entry in measures]
    if isinstance(options, Mapping):
        for name, value in options.items():
            if name not in names:
                hint = suggest_measure(registry, name, names)
                if owners := [e.name for e in measures if has_field(e.spec.config, name)]:
                    hint = " or ".join(f"--set {owner}.{name}={value}" for owner in owners)
                raise UsageError(f"options for {name!r}, which is not a requested measure; {hint}")
        return {name: options.get(name, {}) for name in names}
    by_name: dict[str, list[str]] = {name: [] for name in names}
    for text in options:
        name, dot, rest = text.partition(".")
        if not dot or name not in by_name:
            hint = suggest_measure(registry, name, names)
            key = text.partition("=")[0]
            owners = [e.name for e in measures if has_field(e.spec.config, key)]
            if owners:
                hint = " or ".join(f"--set {quoted(f'{owner}.{text}')}" for owner in owners)
            raise UsageError(
                f"--set {text}: write MEASURE.key=VALUE, or data.key=VALUE for the data; {hint}"
            )
        by_name[name].append(rest)
    return by_name


def suggest_measure(registry: Registry, name: str, names: Sequence[str]) -> str:
    """Return the hint about options of something that is not one of the measures `names`."""
    if name in registry.names("measures"):
        return f"request it with --measure {name}"
    return did_you_mean(name, names) or f"measures are {', '.join(names)}"
