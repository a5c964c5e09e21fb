"""The configuration of a run: TOML file, then options, then `section.key=VALUE`, checked as one.

Torch-free: `latentforge config check` and every usage error answer without waiting for torch.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from latentforge.checking import Faults, check, plain
from latentforge.errors import ConfigError, LatentForgeError, PluginError, UsageError, did_you_mean
from latentforge.registry import Entry, Registry
from latentforge.settings import DataConfig, TrainConfig
from latentforge.specs import LossSpec, ModelSpec

SECTIONS = ("model", "loss", "data", "train")
IN_MEMORY = "in-memory"  # the data section's name when Python handed the data over


@dataclass(frozen=True)
class Component:
    """A chosen plugin component with its checked options."""

    entry: Entry
    options: Any

    @property
    def name(self) -> str:
        return self.entry.name

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.entry.reference, **plain(self.options)}


@dataclass(frozen=True)
class RunConfig:
    """A run's whole configuration, every default filled in and every value checked.

    `dataset` is None for data handed over in Python.
    """

    model: Component
    loss: Component
    dataset: Component | None
    data: DataConfig
    train: TrainConfig
    callbacks: tuple[Component, ...] = ()

    @property
    def data_name(self) -> str:
        return self.dataset.name if self.dataset else IN_MEMORY

    def components(self) -> list[Component]:
        named = (self.model, self.loss, self.dataset, *self.callbacks)
        return [component for component in named if component]

    def as_dict(self) -> dict[str, Any]:
        """The shape of the TOML file."""
        dataset = self.dataset.as_dict() if self.dataset else {"name": IN_MEMORY}
        return {
            "model": self.model.as_dict(),
            "loss": self.loss.as_dict(),
            "data": {**dataset, **plain(self.data)},
            "train": plain(self.train),
            "callbacks": [callback.as_dict() for callback in self.callbacks],
        }


@dataclass
class Draft:
    """Values as they come in, later ones over earlier ones, with where each came from."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def put(self, section: str, key: str, value: Any, origin: str) -> None:
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def choose(self, section: str, name: str, origin: str) -> None:
        """Name a section's component; options meant for another one do not carry over."""
        chosen = self.values.get(section, {})
        if chosen.get("name") not in (None, name):
            keep = {f.name for f in fields(DataConfig)} if section == "data" else set()
            self.values[section] = {k: v for k, v in chosen.items() if k in keep}
        self.put(section, "name", name, origin)

    def update(self, section: str, options: Mapping[str, Any], origin: str) -> None:
        if "name" in options:  # first, because it drops the options of another component
            self.choose(section, options["name"], origin)
        for key, value in options.items():
            if key != "name":
                self.put(section, key, copy.deepcopy(value), origin)

    def read_file(self, path: Path) -> None:
        """Take over a TOML file; raises UsageError when it cannot be read as one."""
        for section, value in read_toml(path).items():
            if section == "callbacks":
                self.read_callbacks(value, path)
            elif section == "explore":
                self.faults.append(
                    f"explore: {path} is for an explorer; latentforge explore NAME RUN --preset ..."
                )
            elif section not in SECTIONS:
                hint = did_you_mean(section, [*SECTIONS, "callbacks"])
                known = "sections are [model] [loss] [data] [train] and [[callbacks]]"
                self.faults.append(f"{section}: no such section in {path}; {hint or known}")
            elif not isinstance(value, dict):
                self.faults.append(f"{section}: must be a section, [{section}], in {path}")
            else:
                self.update(section, value, str(path))

    def read_callbacks(self, given: Any, path: Path) -> None:
        if not isinstance(given, list):
            self.faults.append(f"callbacks: must be tables, [[callbacks]], in {path}")
            return
        for i, table in enumerate(given):
            if isinstance(table, dict):
                self.callbacks.append(table)
            else:
                self.faults.append(f"callbacks[{i}]: must be a table, [[callbacks]], in {path}")

    def assign_all(self, texts: Sequence[str]) -> None:
        """`assign` each; names first, because naming a component drops the options of another."""
        for text in sorted(texts, key=lambda text: ".name=" not in text):
            self.assign(text)

    def assign(self, text: str) -> None:
        """One `section.key=VALUE`; VALUE is TOML, else a string; dots nest."""
        key, equals, value = text.partition("=")
        section, *path = key.strip().split(".")
        if not equals or not path or not all((section, *path)):
            self.faults.append(f"--set {text}: write section.key=VALUE, as in 'model.hidden=[128]'")
        elif section == "callbacks" and len(path) > 1:
            nest(self.callback(path[0]), path[1:], toml_value(value))
        elif section == "callbacks":
            self.faults.append(f"--set {text}: no such key; write callbacks.NAME.key=VALUE")
        elif section not in SECTIONS:
            hint = did_you_mean(section, SECTIONS) or f"sections are {', '.join(SECTIONS)}"
            self.faults.append(f"--set {text}: no such section; {hint}")
        elif path == ["name"]:
            self.choose(section, str(toml_value(value)), f"--set {text}")
        elif nest(self.values.setdefault(section, {}), path, toml_value(value)):
            self.origins[".".join((section, *path))] = f"--set {text}"
        else:
            self.faults.append(f"--set {text}: {key.rpartition('.')[0]} is no table")

    def callback(self, name: str) -> dict[str, Any]:
        """The options of a callback, which is switched on by this."""
        for given in self.callbacks:
            if given.get("name") == name:
                return given
        self.callbacks.append({"name": name})
        return self.callbacks[-1]


def nest(values: dict[str, Any], path: Sequence[str], value: Any) -> bool:
    """Put a value at a path of keys; False where something on the way is no table."""
    *outer, last = path
    for part in outer:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            return False
    values[last] = value
    return True


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file, or a UsageError that says where it is wrong."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no config file at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the config file {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML", details=[str(error)]) from None


def toml_value(text: str) -> Any:
    """A command-line value: TOML where it parses (3, 1e-3, [128], true), else the string itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text  # a line break would smuggle in keys


def resolve(draft: Draft, registry: Registry, *, in_memory: bool = False) -> RunConfig:
    """The checked configuration; raises ConfigError with every fault, or PluginError."""
    faults = Faults(draft.origins, list(draft.faults))
    values = {section: dict(draft.values.get(section, {})) for section in SECTIONS}
    model = _component("models", values["model"], "model", registry, faults)
    if model and "name" not in values["loss"]:
        values["loss"]["name"] = model.entry.spec.default_loss
    has_loss = "name" in values["loss"]  # else it follows from the model, which is unknown
    loss = _component("losses", values["loss"], "loss", registry, faults) if has_loss else None

    if not in_memory:
        values["data"].setdefault("name", "digits")
    dataset, data = resolve_data(values["data"], registry, faults)
    train = check(TrainConfig, values["train"], "train", faults)
    if train:
        train = with_length(train, faults)
    callbacks = [
        _component("callbacks", given, f"callbacks[{i}]", registry, faults)
        for i, given in enumerate(draft.callbacks)
    ]
    if model and train:
        check_monitor(train.monitor, model.entry, registry, faults)
    if model and loss:
        check_match(model.entry.spec, loss.entry.spec, loss.options, faults)
    raise_faults(faults)
    chosen = tuple(callback for callback in callbacks if callback)
    assert model is not None
    assert loss is not None
    return RunConfig(model, loss, dataset, data, train, chosen)


def with_length(train: TrainConfig, faults: Faults) -> TrainConfig:
    """The config with its schedule's length fixed, so that more epochs later do not rewrite it."""
    schedule = train.schedule
    moves = schedule.name != "constant" or schedule.warmup_epochs
    if moves and not schedule.epochs:
        schedule = replace(schedule, epochs=train.epochs)
    if moves and schedule.warmup_epochs >= schedule.epochs:
        faults.add(
            "train.schedule",
            f"the warm-up ends after {schedule.warmup_epochs:g} epochs, "
            f"and the schedule after {schedule.epochs}: it would end before it starts",
        )
    return replace(train, schedule=schedule)


def resolve_data(
    given: Mapping[str, Any], registry: Registry, faults: Faults
) -> tuple[Component | None, Any]:
    """The section [data]: the dataset with its options, if it is named, and the core's own keys."""
    own = {f.name for f in fields(DataConfig)}
    config = check(DataConfig, {k: v for k, v in given.items() if k in own}, "data", faults)
    options = {k: v for k, v in given.items() if k not in own}
    if not options:
        return None, config
    return _component("datasets", options, "data", registry, faults, sorted(own)), config


def _component(
    kind: str,
    given: Mapping[str, Any],
    path: str,
    registry: Registry,
    faults: Faults,
    beside: Sequence[str] = (),
) -> Component | None:
    """The component that a section names; its options are None where they have faults."""
    options = dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str):
        said = "is required" if name is None else f"must be a string, got {name!r}"
        faults.add(f"{path}.name", f"{said}; see `latentforge list {kind}`")
        return None
    if kind == "datasets" and (remedy := dataset_of_path(name)):
        faults.add(f"{path}.name", f"{name!r} is a path, not a dataset; {remedy}")
        return None
    try:
        entry = registry.get(kind, name)
    except PluginError:
        raise  # a plugin's fault, not the user's: exit code 3
    except LatentForgeError as error:
        reasons = [error.message, *error.details, f"try {error.remedy}"]
        faults.add(f"{path}.name", "; ".join(reasons))
        return None
    return Component(entry, check(entry.spec.config, options, path, faults, beside=beside))


def dataset_of_path(name: str) -> str:
    """What to write for a dataset's name that is a file or a folder; empty for other names."""
    if name.endswith(".npz"):
        return f"try --data arrays --set data.path={name}"
    if name.startswith((".", "/", "~")) or name.endswith("/"):
        return f"try --data folder --set data.root={name}"
    return ""


def check_monitor(name: str, model: Entry, registry: Registry, faults: Faults) -> None:
    """Whether the measure that `train.monitor` names can be taken of the model while it trains."""
    try:
        spec = registry.get("measures", name).spec
    except PluginError:
        raise
    except LatentForgeError as error:
        faults.add("train.monitor", f"{error.message}; try {error.remedy}")
        return
    if missing := sorted(set(spec.needs) - set(model.spec.provides)):
        faults.add(
            "train.monitor",
            f"measure {name!r} needs {', '.join(missing)}; "
            f"model {model.name!r} provides {', '.join(sorted(model.spec.provides))}",
        )
    elif spec.roles:
        takes = ", ".join(spec.roles)
        faults.add("train.monitor", f"measure {name!r} needs another run ({takes})")


def check_match(model: Any, loss: Any, options: Any, faults: Faults) -> None:
    """Whether the loss finds in the model what it needs; known before torch loads."""
    assert isinstance(model, ModelSpec)
    assert isinstance(loss, LossSpec)
    if options is None and callable(loss.needs):
        return  # they depend on options that have faults
    needs = loss.needs(options) if callable(loss.needs) else loss.needs
    if missing := sorted(set(needs) - set(model.provides)):
        faults.add(
            "loss.name",
            f"loss {loss.name!r} needs {', '.join(missing)}; "
            f"model {model.name!r} provides {', '.join(sorted(model.provides))}",
        )


def check_options(cls: type[Any], given: Sequence[str] | Mapping[str, Any], what: str) -> Any:
    """The options of an explorer or a measure from `key=VALUE` texts or a mapping."""
    faults = Faults()
    checked = check(cls, read_assignments(given, faults), what, faults)
    raise_faults(faults)
    return checked


def read_assignments(given: Sequence[str] | Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """`key=VALUE` texts as a mapping, in which `outer.inner=VALUE` nests; a mapping as it is."""
    if isinstance(given, Mapping):
        return dict(given)
    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path) or not nest(values, path, toml_value(value)):
            faults.lines.append(f"--set {text}: write key=VALUE")
    return values


def raise_faults(faults: Faults) -> None:
    if faults.lines:
        count = f"{len(faults.lines)} errors" if len(faults.lines) > 1 else "an error"
        raise ConfigError(f"the configuration has {count}", details=faults.lines)
