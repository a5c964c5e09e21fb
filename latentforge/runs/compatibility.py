"""Checks that a stored run is compatible with the installed plugins, other runs and other data."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from latentforge.config.changes import check_changes
from latentforge.config.condition import check_unconditional
from latentforge.config.request import SECTIONS, Draft
from latentforge.config.resolve import resolve
from latentforge.config.schema import IN_MEMORY, DataConfig, RunConfig
from latentforge.config.selection import check_roles, merge_roles
from latentforge.errors import (
    LatentForgeError,
    MissingError,
    PluginError,
    RunFailed,
    UsageError,
)
from latentforge.io.paths import quoted
from latentforge.plugins.registry import Entry, Registry
from latentforge.plugins.requirements import is_older, pip_install
from latentforge.runs.folder import MANIFEST, ROLES, RunFolder, open_folder

log = logging.getLogger("latentforge")
KIND_OF_SECTION = {"model": "models", "loss": "losses", "data": "datasets"}
STORED = "run.json"  # the origin of settings from the stored configuration


def resolve_stored_config(registry: Registry, run: RunFolder) -> RunConfig:
    """Resolve a run's configuration with the installed plugins, without its callbacks: only
    training needs them and their plugins. Raises a PluginError that names a missing plugin."""
    draft = build_draft(run)
    draft.callbacks = []
    components = [part for part in run.manifest["plugins"] if part["kind"] != "callbacks"]
    require_all(registry, run.path, components)
    add_older_values(registry, draft)
    config = resolve(draft, registry, in_memory=is_in_memory(run))
    return open_stored_roles(registry, run, config) if config.roles else config


def resolve_resumed_config(registry: Registry, run: RunFolder, draft: Draft) -> RunConfig:
    """Resolve the configuration with which a run is resumed. `draft` is `build_draft(run)` with the
    user's changes. Raises ConfigError for changes that a resumed run does not allow."""
    require_all(registry, run.path, run.manifest["plugins"])
    add_older_values(registry, draft)
    config = resolve(draft, registry, in_memory=is_in_memory(run))
    changed = {key for key, origin in draft.origins.items() if origin != STORED}
    if draft.callbacks != run.config["callbacks"]:
        changed.add("callbacks")
    check_changes(run.config, config, changed)
    return open_stored_roles(registry, run, config) if config.roles else config


def build_draft(run: RunFolder) -> Draft:
    """Build a request for the configuration with which a run was trained."""
    draft = Draft()
    for section in SECTIONS:
        draft.update(section, run.config.get(section, {}), STORED)
    if is_in_memory(run):
        del draft.values["data"]["name"]
    draft.callbacks = [dict(callback) for callback in run.config["callbacks"]]
    return draft


def add_older_values(registry: Registry, draft: Draft) -> None:
    """Set each option that the run does not store, because the plugin has added it since, to
    `metadata["older_runs"]` of its field, if the field has it, and not to the default of today."""
    parts = [(kind, draft.values.get(section, {})) for section, kind in KIND_OF_SECTION.items()]
    for kind, options in [*parts, *(("callbacks", callback) for callback in draft.callbacks)]:
        if "name" in options:
            spec = registry.get(kind, options["name"]).spec
            _set_older(spec.config, options)
            if inference := getattr(spec, "inference", None):
                _set_older(inference, draft.values.setdefault("sampler", {}))


def _set_older(config: Any, options: dict[str, Any]) -> None:
    for option in dataclasses.fields(config):
        if "older_runs" in option.metadata:
            options.setdefault(option.name, option.metadata["older_runs"])


def is_in_memory(run: RunFolder) -> bool:
    """Whether the run's data was passed from Python instead of loaded by a dataset component."""
    return bool(run.config["data"]["name"] == IN_MEMORY)


def require_all(registry: Registry, run: Path, components: Iterable[Mapping[str, str]]) -> None:
    """Raise PluginError, with an install command, if a component of a run is missing. Log a warning
    for each distribution that is older than the run's."""
    for warning in dict.fromkeys(require(registry, run, component) for component in components):
        if warning:
            log.warning("%s", warning)


def require(registry: Registry, run: Path, component: Mapping[str, str]) -> str:
    """Raise PluginError if a component of a run is missing. Returns a warning if its distribution
    is older than the run's, otherwise an empty string."""
    try:
        plugin = registry.get(component["kind"], component["name"]).plugin
    except LatentForgeError as error:
        distribution = component.get("distribution")
        disabled = [p.off_by for p in registry.plugins if p.has_name(component["plugin"])]
        hint = f"latentforge -p {component.get('module', component['plugin'])} ..."
        if any(disabled):
            hint = f"leave out {disabled[0]}"
        elif distribution:
            hint = pip_install([f"{distribution}=={component.get('version')}"])
        raise PluginError(
            f"{run} was trained with {component['name']!r} of plugin {component['plugin']}"
            + (f" ({distribution} {component.get('version')})" if distribution else ""),
            details=[error.message, *error.details],
            hint=hint,
        ) from None
    version = component.get("version")
    if plugin.distribution and version and is_older(plugin.version, version):
        name = plugin.distribution
        reason = f"{run} was trained with {name} {version}, but {plugin.version} is installed"
        return f"{reason}; try: {pip_install([f'{name}>={version}'])}"
    return ""


def check_same_images(ours: Mapping[str, Any], role: str, other: RunFolder, owner: str) -> None:
    """Raise UsageError unless `other` was trained on images of the same shape, classes and
    preprocessing as `ours`, the data of `owner` in the form of run.json. Otherwise its results on
    these images are meaningless."""
    theirs = other.manifest["data"]
    differences = []
    if ours["shape"] != theirs["shape"]:
        other_value, own_value = ("x".join(map(str, data["shape"])) for data in (theirs, ours))
        differences.append(f"shape: {other_value}, not {own_value}")
    if ours["classes"] and theirs["classes"] and ours["classes"] != theirs["classes"]:
        other_value, own_value = (
            f"{len(data['classes'])} ({_some(data['classes'])})" for data in (theirs, ours)
        )
        differences.append(f"classes: {other_value}, not {own_value}")
    other_steps, own_steps = theirs.get("preprocessing", {}), ours.get("preprocessing", {})
    differences += [
        f"{key}: {other_steps.get(key)!r}, not {own_steps.get(key)!r}"
        for key in differing_steps(other_steps, own_steps)
        if key != "shape"  # compared above
    ]
    if differences:
        name = "the same data" if ours["name"] == IN_MEMORY else ours["name"]
        raise UsageError(
            f"{role} {other.path} was trained on images unlike those of {owner}",
            details=differences,
            hint=f"--with {role}=RUN, where RUN was trained on {name}",
        )


def warn_if_split_differently(
    ours: Mapping[str, Any], config: DataConfig, drawn: Set[str], role: str, other: RunFolder
) -> None:
    """Warn if `other` was trained on the data of a new run, but on another training split. `ours`
    is this data in the form of run.json, `config` its options, and `drawn` the splits that these
    have drawn from the training images."""
    theirs, options = other.manifest["data"], other.config["data"]
    same_seed = not drawn or options.get("split_seed", 0) == config.split_seed
    if ours["sample"] != theirs.get("sample") or (ours["images"] == theirs["images"] and same_seed):
        return
    values = {key: options.get(key) for key in ("split_seed", "validation", "test")}
    steps = (
        f"without data.{key}" if value is None else f"--set data.{key}={value}"
        for key, value in values.items()
        if value != getattr(config, key)
    )
    log.warning(
        "%s %s was trained on another split of the images. Validation and test images of the new "
        "run may be its training images; try: %s",
        *(role, other.path, " ".join(steps)),
    )


def differing_steps(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys of `preprocessing` with different values for the model. The type of the
    stored values and the order of their axes do not matter: the model sees neither."""
    ignored = {"stored", "layout", "limits"}
    if one.get("stored") != other.get("stored") or None in (one.get("white"), other.get("white")):
        ignored |= {"black", "white"}  # values of that type; older runs do not store them
    keys = {*one, *other} - ignored
    return sorted(key for key in keys if one.get(key) != other.get(key))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def open_roles(
    registry: Registry,
    roles: Mapping[str, RunFolder | str | Path] | None,
    entries: Sequence[Entry],
    own: RunConfig | None = None,
) -> dict[str, tuple[RunFolder, RunConfig]]:
    """Open the run of each role, and check that `entries` accept the roles and the models. `own` is
    the configuration of the run that they are used on. A required role that is not in `roles` is
    filled with the copy that this run contains under the same name, if its model fits.

    Raises MissingError if a path is no run, and UsageError if a role is unknown or missing, or if a
    model does not fit its role."""
    folders = {role: open_folder(run) for role, run in (roles or {}).items()}
    resolved = {
        role: (folder, resolve_stored_config(registry, folder)) for role, folder in folders.items()
    }
    needs = merge_roles(entries)
    for role in merge_roles(entries, optional=False):
        if own and role in own.role_runs and role not in resolved:
            folder, config = own.role_runs[role]
            if needs[role] <= config.model.entry.provides:
                resolved[role] = folder, config
    models = {role: config.model.entry for role, (_, config) in resolved.items()}
    check_roles(registry, entries, models)
    return resolved


def note_own_roles(own: RunConfig, roles: Mapping[str, RunFolder]) -> list[str]:
    """Return a note for each role whose run is the copy that the run with the configuration `own`
    contains."""
    copies = [role for role, run in roles.items() if own.role_runs.get(role, [None])[0] is run]
    return [f"role {role}: the copy in the run, {roles[role].path}" for role in copies]


def open_training_roles(registry: Registry, config: RunConfig) -> RunConfig:
    """Return the configuration of a new run with the opened runs of its roles. Raises UsageError if
    a role is unknown or missing, or if a model does not fit its role or is conditional."""
    entries = [part.entry for part in (config.model, config.loss, config.dataset) if part]
    opened = open_roles(registry, config.roles, entries)
    models = {role: other.model.entry for role, (_, other) in opened.items()}
    check_unconditional(models, merge_roles(entries))
    return dataclasses.replace(config, role_runs=opened)


def open_stored_roles(registry: Registry, run: RunFolder, config: RunConfig) -> RunConfig:
    """Return the configuration of a run with the copies of other runs that it contains. Raises
    MissingError if a copy does not exist, and RunFailed if it is a link."""
    opened = {}
    for role in config.roles:
        folder = run.path / ROLES / role
        if folder.is_symlink() or (run.path / ROLES).is_symlink():
            raise RunFailed(
                f"{folder} is a link, but it must be a folder of the run",
                hint="replace the link by a copy of the folder that it points to",
            )
        if not (folder / MANIFEST).is_file():
            raise MissingError(
                f"{run.path} does not contain the run of its role {role}",
                details=[f"{folder} is missing or has no {MANIFEST}"],
                hint=f"restore the folder {quoted(folder)}, or train a new run",
            )
        other = open_folder(folder)
        opened[role] = (other, resolve_stored_config(registry, other))
    return dataclasses.replace(config, role_runs=opened)
