"""The registry: maps a name to a component and the plugin that provides it.

A plain name refers to the built-in if there is one; `distribution/name` reaches every component.
Must not import torch.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from latentforge.errors import (
    PluginError,
    PluginProblem,
    UsageError,
    one_line,
    place_in,
    plugin_title,
)
from latentforge.plugins.unknown import (
    disabled_component,
    suggest,
    unknown_component,
    unknown_plugin,
)
from latentforge.specs import KINDS, Kind

log = logging.getLogger(__name__)

SLOW = 0.5  # seconds; a plugin whose import takes longer gets a notice


@dataclass(frozen=True)
class PluginSelection:
    """The arguments of `load_plugins` with which another process loads the same plugins."""

    plugins: tuple[Any, ...] = ()
    off: tuple[str, ...] = ()
    discover: bool = True


@dataclass(frozen=True)
class Plugin:
    """One plugin and the result of loading it."""

    name: str  # of the entry point, the file (its stem) or the module
    distribution: str = ""  # "" if it is not part of a distribution
    version: str = ""
    module: str = ""  # what it was loaded from: "package.module" or "./my.py"
    status: Literal["ok", "disabled", "failed"] = "ok"
    problems: tuple[PluginProblem, ...] = ()
    seconds: float = 0.0  # the duration of its import
    off_by: str = ""  # what disabled it
    heavy: tuple[str, ...] = ()  # heavy packages that its import loads

    @property
    def builtin(self) -> bool:
        return normalise(self.distribution) == "latentforge"

    @property
    def qualifier(self) -> str:
        """The part before the slash in `distribution/name`."""
        return self.distribution or self.name

    @property
    def title(self) -> str:
        return plugin_title(self.name, self.distribution, self.version)

    @property
    def notice(self) -> str:
        """A notice that the plugin slows most commands down, or an empty string. A built-in is slow
        only on a busy machine."""
        if self.builtin or (not self.heavy and self.seconds <= SLOW):
            return ""
        problem = f"imports {' and '.join(self.heavy)}" if self.heavy else "is slow"
        return (
            f"{self.title} {problem} while it loads, which adds {self.seconds:.1f} s to most"
            f" commands; its author can run: latentforge plugins check {self.address}"
        )

    @property
    def address(self) -> str:
        """The unambiguous name of this plugin, quoted for a command line."""
        return shlex.quote("/".join(filter(None, [self.distribution, self.name])))

    @property
    def failure_reason(self) -> str:
        """One line about why components of this plugin may be missing, or an empty string."""
        causes = [f"{problem.stage}: {problem.cause}" for problem in self.problems]
        if self.status == "disabled":
            causes = [f"disabled by {self.off_by}"]
        return f"{self.title}: {'; '.join(causes)}" if causes else ""

    def has_name(self, name: str) -> bool:
        """Whether `name` is this plugin's name or its `distribution/name`."""
        origin, _, plain = name.rpartition("/")
        return plain == self.name and (not origin or same_distribution(origin, self.distribution))


@dataclass(frozen=True)
class Entry:
    """One component and the plugin that provides it."""

    kind: Kind
    spec: Any  # of the type `kind.spec`
    plugin: Plugin

    @property
    def name(self) -> str:
        return str(self.spec.name)

    @property
    def qualified(self) -> str:
        """The unique name: `distribution/name`."""
        return f"{self.plugin.qualifier}/{self.name}"

    @property
    def reference(self) -> str:
        """The name that runs store: plain for a built-in, qualified for any other component."""
        return self.name if self.plugin.builtin else self.qualified

    @property
    def provides(self) -> frozenset[str]:
        """The capabilities of a model. If they depend on its options, those of the defaults."""
        provided: frozenset[str] = self.spec.capabilities()
        return provided

    def with_options(self, options: Any) -> Entry:
        """Return the entry of a model with the capabilities that it has with these options."""
        if not callable(getattr(self.spec, "provides", None)):
            return self
        return replace(self, spec=replace(self.spec, provides=self.spec.capabilities(options)))


@dataclass(frozen=True)
class Observer:
    """A plugin's function that receives events of runs; `call` takes the hook's arguments."""

    plugin: Plugin
    hook: str
    call: Callable[..., object]
    package: str  # the module of its code, to find its frames in a traceback


class Registry:
    """All components of the loaded plugins, and all faults that were found while loading."""

    def __init__(
        self,
        plugins: Iterable[Plugin],
        entries: Iterable[Entry],
        observers: Iterable[Observer] = (),
        selection: PluginSelection | None = None,
        load_built_ins: Callable[[], Registry] | None = None,
    ) -> None:
        self.plugins = tuple(plugins)
        self.selection = selection or PluginSelection()
        self.observers = tuple(observers)
        self._load_built_ins = load_built_ins or (lambda: self)
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        order = sorted(entries, key=lambda e: (e.name, not e.plugin.builtin, e.qualified))
        self.components = tuple(order)
        for entry in self.components:
            self._entries[entry.kind.plural].setdefault(entry.name, []).append(entry)

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """Every fault of every plugin, in the order of the plugins."""
        return tuple(problem for plugin in self.plugins for problem in plugin.problems)

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices about plugins that slow most commands down, and about components that a built-in
        of the same name hides."""
        return self.slow_imports + tuple(
            f"{entry.kind.singular} {entry.name!r} of {entry.plugin.qualifier} does not replace"
            f" the built-in; use it as {entry.qualified}"
            for kind in KINDS
            for entry in self.entries(kind)
            if not entry.plugin.builtin
            and any(other.plugin.builtin for other in self._entries[kind][entry.name])
        )

    @property
    def slow_imports(self) -> tuple[str, ...]:
        """The notices of the plugins that slow most commands down."""
        return tuple(plugin.notice for plugin in self.plugins if plugin.notice)

    def status_of(self, plugin: Plugin) -> str:
        """Return "ok", "disabled", "failed", or "conflict" if another plugin has the same name or
        provides a component of the same name, so that the plain name does not mean this one."""
        if any(problem.stage == "register" for problem in plugin.problems):
            return "conflict"
        return "conflict" if self.conflicts_of(plugin) else plugin.status

    def conflicts_of(self, plugin: Plugin) -> list[str]:
        """Return a line for each name that the plugin shares with another plugin. A built-in has
        no conflicts, because it keeps its names."""
        if plugin.builtin or plugin.status == "disabled":
            return []
        conflicts = [
            f"plugin {other.name!r} is also provided by {other.qualifier};"
            f" use this one as {plugin.address}"
            for other in self.plugins
            if other.name == plugin.name and other is not plugin and other.status != "disabled"
        ]
        for entry in self.entries_of(plugin):
            conflicts += [
                f"{entry.kind.singular} {entry.name!r} is also provided by"
                f" {other.plugin.qualifier}; use this one as {entry.qualified}"
                for other in self._entries[entry.kind.plural][entry.name]
                if other is not entry
            ]
        return conflicts

    def notify(self, hook: str, **arguments: object) -> None:
        """Call the observers of a hook, such as latentforge_run_started. An exception is logged
        with the plugin's name and does not end the run."""
        for observer in self.observers:
            if observer.hook != hook:
                continue
            try:
                observer.call(**arguments)
            except KeyboardInterrupt:
                raise  # Ctrl-C
            except BaseException as error:  # also SystemExit
                title, location = observer.plugin.title, place_in(error, observer.package)
                message = "%s: %s: %s%s; the run is not affected"
                log.warning(message, title, hook, one_line(error), location)

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """All components of a kind ("models"), by name; a built-in comes before other components
        with the same name."""
        return tuple(entry for same in self._entries[kind].values() for entry in same)

    def entries_of(self, plugin: Plugin) -> tuple[Entry, ...]:
        """The components of one plugin, sorted by name."""
        return tuple(entry for entry in self.components if entry.plugin is plugin)

    def names(self, kind: str) -> tuple[str, ...]:
        """The plain names of a kind, sorted."""
        return tuple(self._entries[kind])

    def get(self, kind: str, name: str) -> Entry:
        """Return the component that a plain or qualified name refers to.

        Raises UsageError if the name is unknown or ambiguous, PluginError if a plugin that did not
        load may provide the component.
        """
        if "/" in name:
            return self._get_qualified(KINDS[kind], name)
        found = self._entries[kind].get(name, [])
        builtin = [entry for entry in found if entry.plugin.builtin]
        if builtin or len(found) == 1:
            return (builtin or found)[0]
        singular = KINDS[kind].singular
        if found:
            choices = sorted(entry.qualified for entry in found)
            raise UsageError(
                f"{singular} {name!r} is offered by {len(found)} plugins: {' and '.join(choices)}",
                hint=f"use a full name, such as {choices[0]}",
            )
        self._check_disabled(kind, name)
        not_loaded = [plugin.failure_reason for plugin in self.plugins if plugin.failure_reason]
        raise unknown_component(KINDS[kind], name, self._entries, not_loaded)

    def _check_disabled(self, kind: str, name: str) -> None:
        """Raise PluginError if a disabled built-in plugin offers a component of this name."""
        disabled = {p.name: p for p in self.plugins if p.builtin and p.status == "disabled"}
        for entry in self._load_built_ins()._entries[kind].get(name, []) if disabled else ():
            if plugin := disabled.get(entry.plugin.name):
                origin = plugin.name, plugin.failure_reason, plugin.off_by
                raise disabled_component(entry.kind, name, *origin)

    def owners(self, name: str) -> dict[str, str]:
        """Map each component of that name, such as "model 'ae'", to the name of its plugin."""
        components = [entry for entry in self.components if entry.name == name]
        return {f"{e.kind.singular} {e.name!r}": e.plugin.name for e in components}

    def plugin(self, name: str) -> Plugin:
        """The plugin of that name, which may be `distribution/name`. Raises UsageError if it is
        unknown or ambiguous."""
        found = [plugin for plugin in self.plugins if plugin.has_name(name)]
        found = [plugin for plugin in found if not plugin.distribution] or found
        if len(found) > 1:
            choices = " and ".join(sorted(f"{p.distribution}/{p.name}" for p in found))
            message = f"{len(found)} plugins are called {name!r}: {choices}"
            raise UsageError(message, hint="use one of these full names")
        if not found:
            raise unknown_plugin(name, [p.name for p in self.plugins], self.owners(name))
        return found[0]

    def _get_qualified(self, kind: Kind, qualified: str) -> Entry:
        origin, _, name = qualified.partition("/")
        entries = self.entries(kind.plural)
        offered = {e.name: e for e in entries if same_distribution(e.plugin.qualifier, origin)}
        if name in offered:
            return offered[name]
        owners = [plugin for plugin in self.plugins if same_distribution(plugin.qualifier, origin)]
        if not owners:
            close = suggest(origin, [plugin.qualifier for plugin in self.plugins])
            # no `pip install` for a misspelt name: somebody may have published it
            hint = f"pip install {shlex.quote(origin)}"
            if close:
                hint = f"latentforge list {kind.plural}"
            elif kind.plural == "datasets" and Path(qualified).exists():
                is_folder = Path(qualified).is_dir()
                option = shlex.quote(f"data.{'root' if is_folder else 'path'}={qualified}")
                hint = f"--data {'folder' if is_folder else 'arrays'} --set {option}"
            elif kind.plural == "datasets":
                hint = f"a path that exists, or {hint} if {qualified} names a package"
            raise PluginError(f"no plugin {origin!r} is installed{close}", hint=hint)
        if owners[0].builtin:
            self._check_disabled(kind.plural, name)
        not_loaded = [plugin.failure_reason for plugin in owners if plugin.failure_reason]
        error = PluginError if not_loaded else UsageError
        raise error(
            f"{owners[0].qualifier} offers no {kind.singular} {name!r}" + suggest(name, offered),
            details=not_loaded,
            hint=f"latentforge list {kind.plural}",
        )


def normalise(distribution: str) -> str:
    """Normalise a distribution's name as package indexes do (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def same_distribution(one: str, other: str) -> bool:
    return normalise(one) == normalise(other)
