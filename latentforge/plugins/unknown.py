"""Errors about names that no loaded plugin offers, each with what was probably meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from latentforge.errors import PluginError, UsageError, did_you_mean
from latentforge.specs import KINDS, Kind

USES = {
    "models": "latentforge train {}",
    "losses": "latentforge train MODEL --loss {}",
    "datasets": "latentforge train ae --data {}",
    "explorers": "latentforge explore {} RUN",
    "objectives": "latentforge explore guided RUN --set objective={}",
    "measures": "latentforge evaluate RUN --measure {}",
    "callbacks": "latentforge train ae --callback {}",
    "presets": "latentforge train --preset {}",
}
"""The command that uses a component of a kind."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?`, or an empty string if no known name is close to `name`."""
    close = did_you_mean(name, known)
    return f", {close}" if close else ""


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def unknown_component(
    kind: Kind, name: str, names: Mapping[str, Collection[str]], not_loaded: Sequence[str]
) -> UsageError | PluginError:
    """Return the error about a name that no component of `kind` has. `names` are the names of all
    kinds, and `not_loaded` the reasons why other components may be missing. The error is a
    PluginError if one of these may be the component."""
    message, close = f"unknown {kind.singular} {name!r}", suggest(name, names[kind.plural])
    others = [other for other in KINDS.values() if name in names[other.plural]]
    if others and not close:
        what = " and ".join(f"{_article(other.singular)} {other.singular}" for other in others)
        hint = " or ".join(USES[other.plural].format(name) for other in others)
        return UsageError(f"{message}: it is {what}", hint=hint)
    error = PluginError if not_loaded and not close else UsageError
    or_load = "" if close else ", or `latentforge -p FILE ...` to load your own"
    hint = f"latentforge list {kind.plural}{or_load}"
    return error(message + close, details=not_loaded, hint=hint)


def disabled_component(kind: Kind, name: str, plugin: str, reason: str, off_by: str) -> PluginError:
    """Return the error about a component of a plugin that the option or variable `off_by`
    disables."""
    hint = f"add {plugin} to {off_by}"  # a list of plugins
    if off_by.startswith("-p"):
        hint = f"leave out {off_by}"
    message = f"{kind.singular} {name!r} belongs to a plugin that is disabled"
    return PluginError(message, details=[reason], hint=hint)


def unknown_plugin(
    name: str, plugins: Iterable[str], owners: Mapping[str, str], option: str = ""
) -> UsageError:
    """Return the error about a name that no plugin has. `owners` maps each component with that
    name, such as "model 'ae'", to its plugin. `option` is where NAME was given, such as
    `-p no:NAME`."""
    message = f"unknown plugin {name!r}"
    if option:
        source = option.partition("=")[0].replace("NAME", name)
        message = f"{source}: there is no plugin {name!r}"
    for component, plugin in owners.items():
        hint = option.replace("NAME", plugin) or f"write {plugin} instead of {name}"
        return UsageError(f"{message}; {component} belongs to plugin {plugin!r}", hint=hint)
    command = "latentforge plugins list"
    if "=" in option:  # the variable applies to this command too
        command = f"env -u {option.partition('=')[0]} {command}"
    return UsageError(message + suggest(name, plugins), hint=command)
