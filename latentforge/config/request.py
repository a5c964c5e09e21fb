"""The request of a user before validation, collected from TOML, options and key=VALUE."""

from __future__ import annotations

import copy
import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from latentforge.config.schema import IN_MEMORY, DataConfig
from latentforge.errors import (
    ConfigError,
    UsageError,
    did_you_mean,
    similar_names,
    similar_paths,
)
from latentforge.io.paths import quoted
from latentforge.plugins.registry import Registry
from latentforge.plugins.requirements import KEY, check_requirements
from latentforge.runtime.python_form import is_section

log = logging.getLogger("latentforge")

GIVEN = ("--data", "--loss", "the model's name")  # origins of names that --set must not contradict
SECTIONS = ("model", "loss", "data", "train", "roles", "sampler")


def separate_data(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the options of [data] from the splits in data that was passed in Python. A number is
    the fraction of a split."""
    names = {f.name for f in fields(DataConfig)} - {"validation", "test"}
    options = {k: v for k, v in data.items() if k in names or isinstance(v, int | float)}
    return options, {k: v for k, v in data.items() if k not in options}


def separate_assignments(texts: Sequence[str], section: str) -> tuple[list[str], list[str]]:
    """Separate the assignments of a section, `SECTION.KEY=VALUE`, from the others."""
    own = [text for text in texts if text.startswith(f"{section}.")]
    return own, [text for text in texts if text not in own]


@dataclass
class Draft:
    """The values of a request and the source of each value. Later values replace earlier ones."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)  # assignments without a section

    def put(self, section: str, key: str, value: Any, origin: str) -> None:
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def select(self, section: str, name: str, origin: str) -> None:
        """Set the component of a section. Options of the previous component are dropped."""
        options = self.values.get(section, {})
        before = self.origins.get(f"{section}.name")
        if before in GIVEN and origin.startswith("--set") and options["name"] != name:
            self.faults.append(f"{origin}: {before} is {options['name']!r}; give only one of them")
        if options.get("name") not in (None, name):
            keep = {f.name for f in fields(DataConfig)} if section == "data" else set()
            self.values[section] = {k: v for k, v in options.items() if k in keep}
            if section == "model":
                self.values.pop("sampler", None)
        self.put(section, "name", name, origin)

    def update(self, section: str, options: Mapping[str, Any], origin: str) -> None:
        if not isinstance(options, Mapping):
            raise UsageError(f"{origin}{options!r}: give a mapping of options to values")
        if "name" in options:  # first, because it drops the options of another component
            self.select(section, options["name"], origin)
        for key, value in options.items():
            if key != "name":
                self.put(section, key, copy.deepcopy(value), origin)

    def read_file(self, path: Path, preset: str = "") -> None:
        """Add the values of a TOML file. Raises UsageError if the file cannot be read, or contains
        options of an explorer instead of a model to train. Raises PluginError, before the values
        are checked, if a required plugin is missing."""
        content = read_toml(path)
        check_requirements(content.pop(KEY, []), str(path))
        if isinstance(explore := content.get("explore"), dict):
            name = explore.get("name", "NAME")
            source = f"preset {preset!r}" if preset else str(path)
            arguments = f"--preset {preset}" if preset else "--set KEY=VALUE"
            raise UsageError(
                f"{source} contains options of an explorer, but no model to train",
                hint=f"latentforge explore {name} RUN {arguments}",
            )
        for section, value in content.items():
            if section == "callbacks":
                self.read_callbacks(value, path)
            elif section not in SECTIONS:
                hint = did_you_mean(section, [*SECTIONS, "callbacks"])
                sections = f"sections are {' '.join(f'[{s}]' for s in SECTIONS)} and [[callbacks]]"
                self.faults.append(f"{section}: no such section in {path}; {hint or sections}")
            elif not isinstance(value, dict):
                self.faults.append(f"{section}: must be a section, [{section}], in {path}")
            else:
                self.update(section, value, str(path))

    def read_callbacks(self, tables: Any, path: Path) -> None:
        if not isinstance(tables, list):
            self.faults.append(f"callbacks: must be tables, [[callbacks]], in {path}")
            return
        for i, table in enumerate(tables):
            if isinstance(table, dict):
                self.callbacks.append(table)
            else:
                self.faults.append(f"callbacks[{i}]: must be a table, [[callbacks]], in {path}")

    def assign_all(self, texts: Sequence[str]) -> None:
        """Apply assignments, those of component names first, because a new name drops the options
        of the previous component."""
        for text in sorted(texts, key=lambda text: ".name=" not in text):
            self.assign(text)

    def assign(self, text: str) -> None:
        """Apply one `section.key=VALUE`; a nested key has dots. VALUE is TOML, or a string."""
        key, equals, value = text.partition("=")
        section, *path = key.strip().split(".")
        if equals and section and not path:
            self.unplaced.append(text)
        elif not equals or not all((section, *path)):
            self.faults.append(f"--set {text}: write section.key=VALUE, as in train.epochs=20")
        elif section == "callbacks" and len(path) > 1:
            set_nested(self.enable_callback(path[0]), path[1:], toml_value(value))
        elif section == "callbacks":
            self.faults.append(f"--set {text}: no such key; write callbacks.NAME.key=VALUE")
        elif section not in SECTIONS:
            hint = self.suggest_section(section, text)
            self.faults.append(f"--set {text}: no such section; {hint}")
        elif path == ["name"]:
            self.select(section, str(toml_value(value)), f"--set {text}")
        elif set_nested(self.values.setdefault(section, {}), path, toml_value(value)):
            flag = self.origins.get(key.strip(), "")
            if flag.startswith("--") and not flag.startswith("--set"):
                log.warning("--set %s replaces the value of %s", text, flag)
            self.origins[".".join((section, *path))] = f"--set {text}"
        else:
            self.faults.append(f"--set {text}: {key.rpartition('.')[0]} is not a table")

    def suggest_section(self, section: str, text: str) -> str:
        """Return the hint for an assignment `text` to an unknown section, which may be the name of
        a callback of the request."""
        requested = [str(options.get("name")) for options in self.callbacks]
        names = {key: name for name in requested for key in (name.rpartition("/")[2], name)}
        close = similar_names(section, [*SECTIONS, "callbacks", *names])
        if close and (name := names.get(close[0])):
            spelling = f"callbacks.{name}.{text.partition('.')[2]}"
            return f"write {spelling}" if close[0] == section else f"did you mean {spelling!r}?"
        known = f"sections are {', '.join(SECTIONS)} and callbacks.NAME"
        return did_you_mean(section, [*SECTIONS, "callbacks"]) or known

    def add_data(self, data: Any) -> Any:
        """Add the argument `data` of the Python API: a dataset's name, the section [data], or the
        data itself, which is returned without split fractions. Otherwise returns None."""
        if data is None:
            return None
        if isinstance(data, str) or is_section(data):
            self.update("data", {"name": data} if isinstance(data, str) else data, "data=")
            return None
        self.select("data", IN_MEMORY, "data=")  # drops a preset's dataset, keeps its fractions
        del self.values["data"]["name"]
        if not isinstance(data, Mapping):
            return data
        options, splits = separate_data(data)
        self.update("data", options, "data=")
        return splits

    def enable_callbacks(self, callbacks: Sequence[str | Mapping[str, Any]]) -> None:
        """Enable callbacks, each given as a name or as a mapping of its name and options."""
        for callback in callbacks:
            if not isinstance(callback, str | Mapping):
                message = f"callbacks: give a name or a mapping with a name, not {callback!r}"
                raise UsageError(message)
            options = {"name": callback} if isinstance(callback, str) else dict(callback)
            self.enable_callback(str(options.get("name"))).update(options)

    def enable_callback(self, name: str) -> dict[str, Any]:
        """Enable a callback if it is not enabled yet, and return its options."""
        for options in self.callbacks:
            if options.get("name") == name:
                return options
        self.callbacks.append({"name": name})
        return self.callbacks[-1]


def set_nested(values: dict[str, Any], path: Sequence[str], value: Any) -> bool:
    """Store a value at a path of keys. Returns False if a value on the path is not a table."""
    *outer, last = path
    for part in outer:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            return False
    values[last] = value
    return True


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises UsageError that names the file and the reason."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        hint = similar_paths(path, path.parent.glob("*.toml"))
        hint = hint or "`latentforge list presets` lists built-in configs, for --preset NAME"
        raise UsageError(f"no config file at {path}", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the config file {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML", details=[str(error)]) from None


def toml_value(text: str) -> Any:
    """Parse a command-line value as TOML (3, 1e-3, [128], true), or else return the string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        is_number = re.fullmatch(r"[+-]?(\.[0-9]+|[0-9]+\.)(e[+-]?[0-9]+)?", text.strip(), re.I)
        return float(text) if is_number else text  # .5 and 5. are no TOML
    return parsed["value"] if len(parsed) == 1 else text  # a line break could add keys


def start_draft(
    registry: Registry, name: str | None, config: str | Path | None, preset: str | None
) -> Draft:
    """Start a draft from a model's name, a config file or a preset. Raises UsageError unless
    exactly one is given."""
    sources = [source for source in (name, config, preset) if source is not None]
    if len(sources) != 1:
        raise UsageError(
            "give exactly one of: a model's name, a config file, a preset",
            details=[f"given: {', '.join(map(str, sources)) or 'none'}"],
            hint=suggest_source(name, config, preset),
        )
    draft = Draft()
    if name is not None:
        draft.select("model", name, "the model's name")
    elif config is not None:
        if str(config) in registry.names("presets") and not Path(config).exists():
            raise UsageError(f"{config} is a preset, not a config file", hint=f"--preset {config}")
        draft.read_file(Path(config))
    elif preset is not None:
        draft.read_file(Path(registry.get("presets", preset).spec.path), preset)
    return draft


def suggest_source(name: str | None, config: str | Path | None, preset: str | None) -> str:
    """Return the hint for a request that names no source, or several."""
    if name is None and config is None and preset is None:
        return "a model's name, such as ae; `latentforge list models` lists them"
    if config is not None and not Path(config).is_file():
        close = similar_paths(Path(config), Path(config).parent.glob("*.toml"))
        return f"leave out --config {quoted(config)}: there is no such file" + (
            close and f"; {close}"
        )
    if name is None:
        return "leave out one of them"
    source = f"--config {quoted(config)}" if config is not None else f"--preset {preset}"
    return f"only {source}; --set model.name={name} changes its model"


def draft_request(
    registry: Registry,
    name: str | None,
    *,
    config: str | Path | None = None,
    preset: str | None = None,
    data: Any = None,
    loss: str | Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    callbacks: Sequence[str | Mapping[str, Any]] = (),
    roles: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
) -> tuple[Draft, Any]:
    """Return the draft of a training run, and the data if it was passed in Python, or else None."""
    draft = start_draft(registry, name, config, preset)
    data = draft.add_data(data)
    if loss is not None:
        draft.update("loss", {"name": loss} if isinstance(loss, str) else loss, "loss=")
    if name is not None and "name" in (model or {}):
        raise UsageError("give the model's name only once: as the first argument or in model=")
    draft.update("model", model or {}, "model=")
    draft.update("train", train or {}, "train=")
    draft.update("sampler", sampler or {}, "sampler=")
    draft.enable_callbacks(callbacks)
    folders = {role: getattr(run, "path", run) for role, run in (roles or {}).items()}
    draft.update("roles", folders, "roles=")
    return draft, data
