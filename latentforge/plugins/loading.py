"""Imports, validates and registers plugins, and collects their specs.

Faults are values, so one broken plugin never stops the others. Must not import the CLI, torch or
pydantic.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.metadata import EntryPoint
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import pluggy

from latentforge import hookspecs
from latentforge.plugins.discovery import (
    Candidate,
    Hooks,
    candidate_for,
    disable_candidates,
    drop_duplicates,
    find_installed,
    module_name,
)
from latentforge.plugins.registry import (
    Entry,
    Observer,
    Plugin,
    PluginSelection,
    Registry,
    normalise,
)
from latentforge.plugins.spec_faults import spec_faults
from latentforge.plugins.unknown import suggest
from latentforge.specs import KINDS, PLUGIN_API, SUPPORTED_API, Kind

BUILT_IN = "latentforge"  # the distribution of the built-in plugins
Owners = dict[tuple[str, str, str], str]
"""Maps kind, qualifier and name of a component to the plugin that provides it."""

KIND_OF_HOOK = {kind.hook: kind for kind in KINDS.values()}
ARGUMENTS = {
    name: tuple(inspect.signature(hook).parameters)
    for name, hook in vars(hookspecs).items()
    if name.startswith("latentforge_")
}
HEAVY = ("torch", "torchvision", "ignite", "matplotlib", "scipy", "sklearn", "pandas")
"""Packages whose import takes a tenth of a second or more. Most commands load the plugins, so hook
modules must not import these."""


def load_plugins(
    extra: Sequence[str | os.PathLike[str] | ModuleType | object] = (),
    off: Sequence[str] = (),
    only: Sequence[str] | None = None,
    discover: bool = True,
) -> Registry:
    """Load the installed plugins and those in `extra`: files, dotted modules, modules, objects.

    `off` and `only` contain plugin names, `distribution/name`, or a distribution for all its
    plugins; excluded plugins are never imported. `only` does not apply to `extra`. Faults are
    collected in the registry. Raises UsageError for an unknown name in `off` or `only`, PluginError
    if a plugin in `extra` cannot be loaded.
    """
    installed = find_installed() if discover else []
    candidates = drop_duplicates([*installed, *map(candidate_for, extra)])
    disable_candidates(candidates, off, only if discover else None, load_built_ins)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    candidates = _load_all(candidates, manager)
    plugins: list[Plugin] = []
    entries: list[Entry] = []
    observers: list[Observer] = []
    owners: Owners = {}
    for candidate in candidates:
        _collect(candidate, manager, owners)
        plugins.append(candidate.finish())
        entries += [Entry(kind, spec, plugins[-1]) for kind, spec in candidate.specs]
        for hook in candidate.observer_hooks:
            call = manager.subset_hook_caller(hook, manager.get_plugins() - {candidate.hooks})
            observers.append(Observer(plugins[-1], hook, call, candidate.package))
    selection = PluginSelection(tuple(extra), tuple(off), discover)
    return Registry(plugins, entries, observers, selection, load_built_ins)


def load_built_ins() -> Registry:
    """Load only the built-in plugins. The registry is empty if they are not installed."""
    if not any(candidate.plugin.builtin for candidate in find_installed()):
        return Registry([], [])
    return load_plugins(only=[BUILT_IN])


def _load_all(candidates: Sequence[Candidate], manager: pluggy.PluginManager) -> list[Candidate]:
    """Import, validate and register plugins. An installed plugin that the user also names is
    loaded once."""
    loaded: dict[int, tuple[object, Plugin]] = {}  # by id, unique while the object is stored
    remaining = []
    for candidate in candidates:
        remaining.append(candidate)
        off = candidate.plugin.status == "disabled"
        if off or candidate.problems or candidate.source is None:
            continue
        start, loaded_before = perf_counter(), {name for name in HEAVY if name in sys.modules}
        target = None
        # what a plugin prints goes to stderr: stdout is for the output of the command
        with candidate.capture_faults("import"), redirect_stdout(sys.stderr):
            target = _import(candidate.source)
        if candidate.problems:
            continue
        heavy = tuple(name for name in HEAVY if name in sys.modules and name not in loaded_before)
        seconds = perf_counter() - start
        candidate.plugin = replace(candidate.plugin, seconds=seconds, heavy=heavy)
        if id(target) not in loaded:
            _register(candidate, target, manager)
            if candidate.hooks:
                loaded[id(target)] = target, candidate.plugin
        elif candidate.required:
            remaining.pop()
        else:
            first = loaded[id(target)][1]
            cause = f"{candidate.plugin.module} is already loaded as {first.qualifier}/{first.name}"
            candidate.add_fault("register", cause)
    return remaining


def _import(source: object) -> object:
    if isinstance(source, EntryPoint):
        if not source.pattern.match(source.value):
            raise ImportError(f"entry point {source.value!r} is neither MODULE nor MODULE:OBJECT")
        return source.load()
    if isinstance(source, Path):
        with _importable(source.parent):
            return _run_file(source)
    if isinstance(source, str):
        with _importable(Path.cwd()):
            module, _, name = source.partition(":")
            target = importlib.import_module(module)
            return attrgetter(name)(target) if name else target
    return source


def _run_file(path: Path) -> ModuleType:
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make the modules in `folder` importable without hiding installed ones."""
    path = str(folder)
    added = [] if path in sys.path else [path]
    sys.path += added
    try:
        yield
    finally:
        if added and path in sys.path:
            sys.path.remove(path)


def _register(candidate: Candidate, target: object, manager: pluggy.PluginManager) -> None:
    plugin = candidate.plugin
    name = f"{plugin.distribution}:{plugin.name}"
    if manager.has_plugin(name):
        cause = f"another plugin is called {plugin.name}, so {plugin.module} is not loaded"
        candidate.add_fault("register", cause, "rename one of them (for an object, set __name__)")
        return
    with candidate.capture_faults("validate"):
        if valid := _valid_hooks(candidate, target, manager):
            hooks = Hooks(valid)
            manager.register(hooks, name)
            candidate.hooks = hooks


def _valid_hooks(
    candidate: Candidate, target: object, manager: pluggy.PluginManager
) -> dict[str, Callable[..., Any]]:
    """Return the valid hooks by attribute name, and add a fault for each invalid hook."""
    api = getattr(target, "LATENTFORGE_API", PLUGIN_API)
    if type(api) is not int or api not in SUPPORTED_API:  # True == 1
        supported = " and ".join(map(str, SUPPORTED_API))
        cause = f"written for plugin API {api!r}; this LatentForge supports {supported}"
        candidate.add_fault("validate", cause)
        return {}
    hooks: dict[str, Callable[..., Any]] = {}
    for name in dir(target):
        if name.startswith("__"):
            continue  # defined by Python
        options = manager.parse_hookimpl_opts(target, name)
        if options is None:
            if name.startswith("latentforge_") and inspect.isroutine(getattr(target, name)):
                cause = f"{name} is not marked as a hook"
                candidate.add_fault("validate", cause, "put @latentforge.hookimpl above it")
            continue
        hook, function = options["specname"] or name, getattr(target, name)
        wraps = options["wrapper"] or options["hookwrapper"]
        if fault := _hook_fault(hook, function, wraps):
            if hook in ARGUMENTS or not options["optionalhook"]:
                candidate.add_fault("validate", *fault)
            continue
        hooks[name] = function
    if not hooks and not candidate.problems:
        hint = "mark its hook functions with @latentforge.hookimpl"
        candidate.add_fault("validate", f"{candidate.plugin.module} has no hooks", hint)
    return hooks


def _hook_fault(hook: str, function: Callable[..., Any], wraps: bool) -> tuple[str, str] | None:
    """Return the reason why a hook cannot be called, with a hint, or None."""
    if hook not in ARGUMENTS:
        return f"there is no hook {hook}{suggest(hook, ARGUMENTS)}", "rename it"
    parameters = ARGUMENTS[hook]
    if wraps:
        return f"{hook} is a wrapper, and hooks are called one at a time", "drop the wrapper option"
    required = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in parameters
    ]
    if required:
        cause = f"{hook}({', '.join(required)}) takes arguments that the hook does not have"
        instance = ", or register an instance of the class" if required == ["self"] else ""
        return cause, f"define it as {hook}({', '.join(parameters)})" + instance
    return None


def _collect(candidate: Candidate, manager: pluggy.PluginManager, owners: Owners) -> None:
    """Call the hooks of one plugin and collect its valid specs."""
    hooks = [caller.name for caller in manager.get_hookcallers(candidate.hooks) or ()]
    candidate.observer_hooks = [hook for hook in hooks if hook not in KIND_OF_HOOK]
    others = manager.get_plugins() - {candidate.hooks}
    for kind in (KIND_OF_HOOK[hook] for hook in hooks if hook in KIND_OF_HOOK):
        with candidate.capture_faults("collect", f"{kind.hook}: "), redirect_stdout(sys.stderr):
            for spec in _specs(candidate, kind, manager.subset_hook_caller(kind.hook, others)()):
                _accept(candidate, kind, spec, owners)


def _specs(candidate: Candidate, kind: Kind, results: list[Any]) -> Iterator[object]:
    for result in results or [None]:  # pluggy drops a result of None
        if isinstance(result, Iterable) and not isinstance(result, str):
            yield from result
        else:
            cause = f"{kind.hook} returned {type(result).__name__}, not {kind.spec.__name__}s"
            candidate.add_fault("collect", cause, "yield each one, or return a list")


def _accept(candidate: Candidate, kind: Kind, spec: object, owners: Owners) -> None:
    name = getattr(spec, "name", None)
    prefix = f"{kind.singular} {name!r}: " if isinstance(name, str) else f"{kind.hook}: "
    faults = spec_faults(kind, spec)
    if isinstance(spec, kind.spec) and not faults:
        key = (kind.plural, normalise(candidate.plugin.qualifier), spec.name)
        if key not in owners:
            owners[key] = candidate.plugin.name
            candidate.specs.append((kind, spec))
            return
        faults = [f"plugin {owners[key]} already provides a component of that name"]
    for fault in faults:
        candidate.add_fault("collect", prefix + fault)
