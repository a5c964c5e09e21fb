"""Resolves a request into a RunConfig: every default filled in, every fault reported.

Must not import torch, so that `latentforge config check` and usage errors are fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from latentforge.config.capabilities import describe_missing, list_fitting, suggest_models
from latentforge.config.data_range import add_range_faults
from latentforge.config.request import SECTIONS, Draft, separate_data, set_nested, toml_value
from latentforge.config.schema import (
    DATASET,
    Component,
    DataConfig,
    OtherData,
    RunConfig,
    TrainConfig,
)
from latentforge.config.suggestions import (
    describe_unplaced,
    has_field,
    suggest_loss_option,
    suggest_model_option,
)
from latentforge.config.validation import (
    Faults,
    absolute_path,
    accepts,
    check,
    find_default_faults,
    plain,
)
from latentforge.errors import ConfigError, PluginError, UsageError, similar_names
from latentforge.io.paths import quoted
from latentforge.io.text import counted
from latentforge.plugins.registry import Entry, Registry

# The options of [data] by which other data of a run becomes input of its model.
VALUE_OPTIONS = ("binarize", "black", "white", "range", "normalize")


def resolve(draft: Draft, registry: Registry, *, in_memory: bool = False) -> RunConfig:
    """Return the validated configuration. Raises ConfigError with every fault of the request, or
    PluginError for a fault of a plugin."""
    faults = Faults(draft.origins, list(draft.faults))
    values = {section: dict(draft.values.get(section, {})) for section in SECTIONS}
    model = _component("models", values["model"], "model", registry, faults)
    if model:
        for key, value in model.entry.spec.train.items():
            values["train"].setdefault(key, value)  # after the requested ones, as are their faults
    if model and "name" not in values["loss"]:
        values["loss"]["name"] = model.entry.spec.default_loss
    has_loss = "name" in values["loss"]  # otherwise the loss depends on the unknown model
    loss = _component("losses", values["loss"], "loss", registry, faults) if has_loss else None

    if not in_memory:
        values["data"].setdefault("name", DATASET)
    dataset, data = resolve_data(values["data"], registry, faults)
    names = [part.name for part in (model, loss, dataset) if part]
    faults.lines += [describe_unplaced(text, registry, names) for text in draft.unplaced]
    train = check(TrainConfig, values["train"], "train", faults)
    if train:
        train = fix_schedule_length(train, faults)
    callbacks = [
        _component("callbacks", options, f"callbacks[{i}]", registry, faults)
        for i, options in enumerate(draft.callbacks)
    ]
    if model and train:
        check_monitor(train.monitor, model, registry, faults)
    roles = resolve_roles(values["roles"], faults)
    sampler = resolve_sampler(model.entry, values["sampler"], faults) if model else None
    if model and loss:
        check_match(model, loss, registry, faults)
    if data and data.requested_range:
        add_range_faults(registry, (model, loss), data.requested_range, faults)
    raise_faults(faults)
    enabled = tuple(callback for callback in callbacks if callback)
    assert model is not None
    assert loss is not None
    return RunConfig(model, loss, dataset, data, train, enabled, roles, sampler=sampler)


def resolve_roles(values: Mapping[str, Any], faults: Faults) -> dict[str, Path]:
    """Return the folder of the run in each role of the section [roles]."""
    roles: dict[str, Path] = {}
    for role, value in values.items():
        if isinstance(value, bool | float | list | dict) or not str(value):
            faults.add(f"roles.{role}", f"must be the folder of a run, got {value!r}")
        else:  # a folder may be called 2024
            roles[role] = absolute_path(Path(str(value)))
    return roles


def resolve_sampler(model: Entry, values: Mapping[str, Any], faults: Faults) -> Any:
    """Return the inference options of a model, which are None if it has none."""
    inference = model.spec.inference
    if inference is not None:
        return check(inference, values, "sampler", faults, owner=f"model {model.name!r}")
    for key in values:
        faults.add(f"sampler.{key}", f"model {model.name!r} has no inference options")
    return None


def fix_schedule_length(train: TrainConfig, faults: Faults) -> TrainConfig:
    """Set the length of the schedule, so that a later increase of the epochs does not change it."""
    schedule = train.schedule
    varies = schedule.name != "constant" or schedule.warmup_epochs
    if varies and not schedule.epochs:
        schedule = replace(schedule, epochs=train.epochs)
    if varies and schedule.warmup_epochs >= schedule.epochs:
        faults.add(
            "train.schedule",
            f"the warm-up ({counted(schedule.warmup_epochs, 'epoch')}) must be shorter than "
            f"the schedule ({counted(schedule.epochs, 'epoch')})",
        )
    return replace(train, schedule=schedule)


def resolve_data(
    values: Mapping[str, Any], registry: Registry, faults: Faults
) -> tuple[Component | None, Any]:
    """Validate the section [data]: the core's keys and, if one is named, the dataset's options."""
    core_keys = {f.name for f in fields(DataConfig)}
    config = check(DataConfig, {k: v for k, v in values.items() if k in core_keys}, "data", faults)
    options = {k: v for k, v in values.items() if k not in core_keys}
    if not options:
        return None, config
    owners = find_owners(options, registry)
    for key, names in owners.items():
        owner = f"no option of dataset {options['name']!r}, but of {', '.join(names)}"
        faults.add(f"data.{key}", f"{owner}; choose the dataset with --data NAME")
        del options[key]
    return _component("datasets", options, "data", registry, faults, sorted(core_keys)), config


def find_owners(options: Mapping[str, Any], registry: Registry) -> dict[str, list[str]]:
    """Return the datasets that have an option, by the options that only other datasets have than
    the one that `options` names."""
    entries = registry.entries("datasets")
    keys = {entry.name: [f.name for f in fields(entry.spec.config)] for entry in entries}
    own = keys.get(str(options.get("name")))
    if own is None:
        return {}
    configs = {entry.name: entry.spec.config for entry in entries}
    owners = {
        key: [n for n in keys if key in keys[n] and accepts(configs[n], {key: value}, "data")]
        for key, value in options.items()
        if key not in own
    }
    return {key: names for key, names in owners.items() if key != "name" and names}


def resolve_dataset(
    registry: Registry, name: str, options: Sequence[str] | Mapping[str, Any]
) -> tuple[Component, DataConfig]:
    """Resolve a dataset by its name. `options` are options of [data], as a mapping or as
    `key=VALUE` strings. Raises ConfigError with every fault."""
    faults = Faults()
    if not isinstance(options, Mapping):
        options = [text.removeprefix("data.") for text in options]
    values = {"name": name, **read_assignments(options, faults)}
    if values["name"] != name:
        faults.add("data.name", f"is {values['name']!r}, but the command is about {name!r}")
    dataset, config = resolve_data(values, registry, faults)
    raise_faults(faults)
    assert dataset is not None
    return dataset, config


def resolve_other_data(
    registry: Registry,
    config: RunConfig,
    data: Any,
    options: Sequence[str] | Mapping[str, Any],
) -> Any:
    """Return the data that replaces the own data of a run: OtherData for a dataset or data with
    options, or for changed options of the run's own dataset. Data without options is returned
    unchanged, and None without a request. The binarization and the scale of values are those of the
    run. The data is split only if an option requests it.

    Raises UsageError for options without a dataset, and ConfigError with every fault.
    """
    faults = Faults()
    if not isinstance(options, Mapping):
        options = [text.removeprefix("data.") for text in options]
    values = read_assignments(options, faults)
    raise_faults(faults)
    if isinstance(data, Mapping):
        given, splits = (dict(data), {}) if "name" in data else separate_data(data)
        data = given.pop("name", splits or None)
        values = {**given, **values}
    if "name" in values:
        if data is not None and not (isinstance(data, str) and data == values["name"]):
            source = repr(data) if isinstance(data, str) else "given in Python"
            raise UsageError(
                f"data {source} and data.name={values['name']} are two datasets",
                hint="give only one of them",
            )
        data = values.pop("name")
    if not values and not isinstance(data, str):
        return data
    own = plain(config.data)
    stored: dict[str, Any] = {key: own[key] for key in VALUE_OPTIONS}
    if data is None:
        if config.dataset is None:
            raise UsageError(
                "the run was trained on data passed in Python, which has no options",
                hint="--data NAME --set data.KEY=VALUE",
            )
        data = config.dataset.entry.reference
        stored = {**own, **config.dataset.as_dict()}
        del stored["name"]
    split = not values.keys().isdisjoint(("validation", "test", "split_seed"))
    scaled = not values.keys().isdisjoint(("black", "white", "range"))
    values = {**stored, **values}
    if isinstance(data, str):
        dataset, checked = resolve_data({"name": data, **values}, registry, faults)
        raise_faults(faults)
        return OtherData(dataset, checked, split, scaled)
    checked = check(DataConfig, values, "data", faults)
    raise_faults(faults)
    return OtherData(None, checked, split, scaled, data)


def _component(
    kind: str,
    values: Mapping[str, Any],
    path: str,
    registry: Registry,
    faults: Faults,
    other_keys: Sequence[str] = (),
) -> Component | None:
    """The component that a section names; None if its name is invalid. Invalid options are None."""
    options = dict(values)
    name = options.pop("name", None)
    if not isinstance(name, str):
        reason = "is required" if name is None else f"must be a string, got {name!r}"
        faults.add(f"{path}.name", f"{reason}; see `latentforge list {kind}`")
        return None
    if kind == "datasets" and (hint := suggest_dataset(name)):
        faults.add(f"{path}.name", f"{name!r} is a path, not a dataset; {hint}")
        return None
    try:
        entry = registry.get(kind, name)
    except UsageError as error:  # a PluginError is not the user's fault: exit code 3
        faults.add(f"{path}.name", format_unknown(error))
        return None
    check_defaults(entry)
    owner = "" if other_keys else f"{entry.kind.singular} {name!r}"
    cls = entry.spec.config
    for key in [key for key in options if kind == "models" and is_inference(entry, key)]:
        faults.add(f"{path}.{key}", f"is an inference option of {owner}: write sampler.{key}")
        del options[key]
    if kind in ("models", "losses"):
        for key in [key for key in options if not has_field(cls, key)]:
            given = {key: options[key]}
            others = [
                e.name
                for e in registry.entries(kind)
                if has_field(e.spec.config, key) and accepts(e.spec.config, given, path, faults)
            ]
            if others and not similar_names(key, [f.name for f in fields(cls)]):
                of = f"{kind} {', '.join(others)}" if len(others) > 1 else others[0]
                faults.add(f"{path}.{key}", f"no such option of {owner}, but of {of}")
                del options[key]
    checked = check(cls, options, path, faults, owner=owner, other_keys=other_keys)
    return Component(entry if checked is None else entry.with_options(checked), checked)


def is_inference(model: Entry, key: str) -> bool:
    """Whether a model has only an inference option with this name."""
    spec = model.spec
    known = spec.inference is not None and has_field(spec.inference, key)
    return known and not has_field(spec.config, key)


def format_unknown(error: UsageError) -> str:
    """Return the error about an unknown component as one line."""
    if error.message.endswith("?"):  # did you mean ...?
        return f"{error.message} {'; '.join([*error.details, f'`{error.hint}` lists all'])}"
    return "; ".join([error.message, *error.details, f"try {error.hint}"])


def check_defaults(entry: Entry) -> None:
    """Raise PluginError if a third-party component has invalid defaults, even overridden ones."""
    classes = filter(None, (entry.spec.config, getattr(entry.spec, "inference", None)))
    wrong = [] if entry.plugin.builtin else [f for c in classes for f in find_default_faults(c)]
    if wrong:
        raise PluginError(
            f"{entry.kind.singular} {entry.name!r} of {entry.plugin.title} has wrong defaults",
            details=wrong,
            hint=f"latentforge plugins check {entry.plugin.name}",
        )


def suggest_dataset(name: str) -> str:
    """Return a hint if the name of a dataset is a path, or else an empty string."""
    if name.endswith((".npz", ".npy")):
        dataset, option = "arrays", "path"
    elif name.startswith((".", "/", "~")) or name.endswith("/"):
        dataset, option = "folder", "root"
    else:
        return ""
    return f"try --data {dataset} --set {quoted(f'data.{option}={name}')}"


def check_monitor(name: str, model: Component, registry: Registry, faults: Faults) -> None:
    """Add a fault if the measure in `train.monitor` cannot be computed during training."""
    try:
        spec = registry.get("measures", name).spec
    except UsageError as error:
        faults.add("train.monitor", format_unknown(error))
        return
    if message := describe_missing(f"measure {name!r}", spec.needs, model.entry.spec):
        others = list_fitting(registry, "measures", model.entry.spec)
        options = suggest_model_option(model, spec.needs, registry)
        hint = "; ".join([*options, f"measures that fit: {others}"])
        faults.add("train.monitor", f"{message}; {hint}")
    elif spec.roles:
        roles = ", ".join(spec.roles)
        faults.add("train.monitor", f"measure {name!r} needs another run ({roles})")


def check_match(model: Component, loss: Component, registry: Registry, faults: Faults) -> None:
    """Add a fault, before torch loads, if the model lacks a capability that the loss needs, with
    the option that changes this."""
    spec = loss.entry.spec
    if loss.options is None and callable(spec.needs):
        return  # the needs depend on options that have faults
    needs = spec.needs(loss.options) if callable(spec.needs) else spec.needs
    if message := describe_missing(f"loss {loss.name!r}", needs, model.entry.spec):
        hints = [*suggest_model_option(model, needs, registry), *suggest_loss_option(model, loss)]
        hints.append(f"leave the loss out for {model.entry.spec.default_loss!r}")
        if models := suggest_models(registry, needs):
            hints.append(f"{models} for loss {loss.name!r}")
        faults.add("loss.name", f"{message}; {', or '.join(hints)}")


def check_options(cls: type[Any], assignments: Sequence[str] | Mapping[str, Any], path: str) -> Any:
    """Validate options of an explorer or a measure, from `key=VALUE` strings or a mapping."""
    faults = Faults()
    options = check(cls, read_assignments(assignments, faults), path, faults)
    raise_faults(faults)
    return options


def read_assignments(
    assignments: Sequence[str] | Mapping[str, Any], faults: Faults
) -> dict[str, Any]:
    """Parse `key=VALUE` strings; `outer.inner=VALUE` is nested. A mapping is copied."""
    if isinstance(assignments, Mapping):
        return dict(assignments)
    values: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path) or not set_nested(values, path, toml_value(value)):
            faults.lines.append(f"--set {text}: write key=VALUE")
        else:
            faults.texts[key.strip()] = value.strip()
    return values


def raise_faults(faults: Faults) -> None:
    if faults.lines:
        count = "an error" if len(faults.lines) == 1 else counted(len(faults.lines), "error")
        raise ConfigError(f"the configuration has {count}", details=faults.lines)
