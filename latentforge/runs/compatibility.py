"""Whether a stored run fits the installed plugins, other runs and other data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from latentforge.config.changes import check_changes
from latentforge.config.request import SECTIONS, Draft
from latentforge.config.resolve import resolve
from latentforge.config.schema import IN_MEMORY, RunConfig
from latentforge.config.selection import check_roles
from latentforge.errors import LatentForgeError, PluginError, UsageError
from latentforge.plugins.registry import Entry, Registry
from latentforge.plugins.requirements import is_older, pip_install
from latentforge.runs.folder import RunFolder, open_folder

log = logging.getLogger("latentforge")
STORED = "run.json"  # the origin of a setting that the run began with


def config_of(registry: Registry, run: RunFolder) -> RunConfig:
    """A run's configuration with today's plugins; PluginError names the one to install.

    Without its callbacks: they belong to the training, and nothing else needs their plugins.
    """
    draft = draft_of(run)
    draft.callbacks = []
    wanted = [each for each in run.manifest["plugins"] if each["kind"] != "callbacks"]
    require_all(registry, run.path, wanted)
    return resolve(draft, registry, in_memory=is_in_memory(run))


def resumed_config(registry: Registry, run: RunFolder, draft: Draft) -> RunConfig:
    """The configuration of a run that is to be resumed as `draft` describes it, which began as
    `draft_of(run)`; ConfigError names what must not change."""
    require_all(registry, run.path, run.manifest["plugins"])
    config = resolve(draft, registry, in_memory=is_in_memory(run))
    given = {key for key, origin in draft.origins.items() if origin != STORED}
    if draft.callbacks != run.config["callbacks"]:
        given.add("callbacks")
    check_changes(run.config, config, given)
    return config


def draft_of(run: RunFolder) -> Draft:
    """What a run was trained with, as if it were asked for again."""
    draft = Draft()
    for section in SECTIONS:
        draft.update(section, run.config[section], STORED)
    if is_in_memory(run):
        del draft.values["data"]["name"]
    draft.callbacks = [dict(callback) for callback in run.config["callbacks"]]
    return draft


def is_in_memory(run: RunFolder) -> bool:
    """Whether Python handed its data over."""
    return bool(run.config["data"]["name"] == IN_MEMORY)


def require_all(registry: Registry, run: Path, wanted: Iterable[Mapping[str, str]]) -> None:
    """PluginError that says what to install where a component of a run is not here; a warning for
    each distribution that is of an older version than the run's."""
    for older in dict.fromkeys(require(registry, run, each) for each in wanted):
        if older:
            log.warning("%s", older)


def require(registry: Registry, run: Path, wanted: Mapping[str, str]) -> str:
    """Whether a component of a run is here, which else is a PluginError; what there is to say of
    its version, or an empty string."""
    try:
        plugin = registry.get(wanted["kind"], wanted["name"]).plugin
    except LatentForgeError as error:
        packaged = wanted["distribution"]
        off = [p.off_by for p in registry.plugins if p.is_called(wanted["plugin"])]
        remedy = f"latentforge -p {wanted.get('module', wanted['plugin'])} ..."
        if any(off):
            remedy = f"the same without {off[0]}"
        elif packaged:
            remedy = pip_install([f"{packaged}=={wanted['version']}"])
        raise PluginError(
            f"{run} was made with {wanted['name']!r} of plugin {wanted['plugin']}"
            + (f" ({packaged} {wanted['version']})" if packaged else ""),
            details=[error.message, *error.details],
            remedy=remedy,
        ) from None
    if plugin.distribution and is_older(plugin.version, wanted["version"]):
        made, here = f"{plugin.distribution} {wanted['version']}", plugin.version
        newer = pip_install([f"{plugin.distribution}>={wanted['version']}"])
        return f"{run} was made with {made}, and {here} is installed; try: {newer}"
    return ""


def check_same_images(run: RunFolder, role: str, other: RunFolder) -> None:
    """UsageError unless `other` was trained on images of the same shape, classes and preparation:
    what it makes of this run's images would mean nothing."""
    ours, theirs = run.manifest["data"], other.manifest["data"]
    differing = []
    if ours["shape"] != theirs["shape"]:
        there, here = ("x".join(map(str, data["shape"])) for data in (theirs, ours))
        differing.append(f"shape: {there}, not {here}")
    if ours["classes"] and theirs["classes"] and ours["classes"] != theirs["classes"]:
        there, here = (
            f"{len(data['classes'])} ({_some(data['classes'])})" for data in (theirs, ours)
        )
        differing.append(f"classes: {there}, not {here}")
    prepared, own = theirs.get("preprocessing", {}), ours.get("preprocessing", {})
    differing += [
        f"{key}: {prepared.get(key)!r}, not {own.get(key)!r}"
        # the shape is said above; stored is how files hold them, which divide_by says
        for key in sorted({*prepared, *own} - {"stored", "shape"})
        if prepared.get(key) != own.get(key)
    ]
    if differing:
        raise UsageError(
            f"{role} {other.path} was trained on other images than {run.path}",
            details=differing,
            remedy=f"--with {role}= a run on {run.config['data']['name']}",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def open_roles(
    registry: Registry,
    roles: Mapping[str, RunFolder | str | Path] | None,
    entries: Sequence[Entry],
) -> dict[str, tuple[RunFolder, RunConfig]]:
    """The other runs by role, each one that `entries` take and with a model that fits."""
    folders = {role: open_folder(run) for role, run in (roles or {}).items()}
    found = {role: (folder, config_of(registry, folder)) for role, folder in folders.items()}
    check_roles(entries, {role: config.model.entry for role, (_, config) in found.items()})
    return found
