"""From names to components: discover -> filter -> load -> validate -> register -> collect.

One broken plugin never stops the others: its faults are values. No CLI, no torch, no pydantic.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import pluggy

from latentforge import hookspecs
from latentforge.errors import PluginError, PluginProblem, UsageError, closest, one_line, place_in
from latentforge.registry import Entry, Plugin, Registry, normalise, same, spec_faults, suggest
from latentforge.specs import KINDS, PLUGIN_API, Kind, Spec

__all__ = ["ENVIRONMENT", "Plugin", "from_environment", "load_plugins"]

ENVIRONMENT = "LATENTFORGE_PLUGINS"
KIND_OF_HOOK = {kind.hook: kind for kind in KINDS.values()}
FILE = re.compile(rf"\.py$|[/{re.escape(os.sep)}]")
CAUGHT = (Exception, SystemExit)  # what a plugin may raise; KeyboardInterrupt is the user's


def from_environment(environ: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """The allow-list of LATENTFORGE_PLUGINS (comma separated); None when it is not set."""
    names = environ.get(ENVIRONMENT)
    return None if names is None else tuple(n for n in map(str.strip, names.split(",")) if n)


def load_plugins(
    extra: Sequence[str | os.PathLike[str] | ModuleType | object] = (),
    off: Sequence[str] = (),
    only: Sequence[str] | None = None,
    discover: bool = True,
) -> Registry:
    """Load the installed plugins and those in `extra`: files, dotted modules, modules, objects.

    `off` and `only` take plugin names, `distribution/name`, or a distribution for all its plugins;
    what they leave out is never imported. `only` does not concern `extra`. Faults are collected in
    the registry. Raises UsageError for an unknown name in `off` or `only`, PluginError where a
    plugin in `extra` cannot be loaded.
    """
    candidates = _unique([*(_installed() if discover else ()), *map(_explicit, extra)])
    _switch_off(candidates, off, only if discover else None)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    candidates = _load_all(candidates, manager)
    plugins: list[Plugin] = []
    entries: list[Entry] = []
    owners: dict[tuple[str, str, str], str] = {}
    for candidate in candidates:
        _collect(candidate, manager, owners)
        plugins.append(candidate.finish())
        entries += [Entry(kind, spec, plugins[-1]) for kind, spec in candidate.offers]
    return Registry(plugins, entries)


class _Hooks:
    """The good hooks of one plugin: a bad one must not take them with it, and pluggy compares and
    hashes what it registers, which an author's object may not stand."""

    def __init__(self, hooks: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(hooks)


@dataclass(eq=False)
class _Candidate:
    """A plugin on its way: what is known of it so far."""

    plugin: Plugin
    source: object  # what to load: an EntryPoint, the Path of a file, a module's name, the object
    package: str  # the top-level module of its code, to find its own frames in a traceback
    required: bool = False  # the user named it: nothing goes on without it
    problems: list[PluginProblem] = field(default_factory=list)
    error: BaseException | None = None
    hooks: _Hooks | None = None
    kinds: list[Kind] = field(default_factory=list)  # of its good hooks
    offers: list[tuple[Kind, Spec]] = field(default_factory=list)

    def fault(self, stage: str, cause: str, remedy: str = "") -> None:
        plugin = self.plugin
        if not remedy and plugin.distribution:
            update = f"pip install --upgrade {plugin.distribution}"
            remedy = f"{update}, or go on without it: latentforge -p no:{plugin.name} ..."
        remedy = remedy or f"mend {plugin.module}, or leave it out"
        origin = (plugin.name, plugin.distribution, plugin.version)
        self.problems.append(PluginProblem(*origin, stage, cause, remedy))

    def caught(self, stage: str, error: BaseException, what: str = "") -> None:
        """Record what the plugin's code raised, with the place in that code."""
        self.error = error
        self.fault(stage, what + one_line(error) + place_in(error, self.package))

    def finish(self) -> Plugin:
        """The plugin as it ended; raises PluginError when the user named it and it failed."""
        if self.plugin.status == "disabled":
            return self.plugin
        failed = not self.hooks or (bool(self.problems) and not self.offers)
        if failed and self.required:
            first, *more = self.problems
            raise PluginError(
                f"plugin {self.plugin.module} cannot be loaded: {first.stage}: {first.cause}",
                details=[problem.cause for problem in more],
                remedy=first.remedy,
            ) from self.error
        problems = tuple(self.problems)
        return replace(self.plugin, status="failed" if failed else "ok", problems=problems)


def _installed() -> list[_Candidate]:
    """One candidate for each entry point: the built-ins first, then by distribution and name."""
    found: list[_Candidate] = []
    try:
        points = list(entry_points(group="latentforge"))
    except Exception:  # one malformed entry_points.txt, of any package, hides all the others
        points = []
        for dist in distributions():
            try:
                points += dist.entry_points.select(group="latentforge")
            except Exception as error:
                name, version = _origin(dist)
                found.append(_Candidate(Plugin(name, name, version), None, ""))
                cause = f"its entry_points.txt cannot be read: {one_line(error)}"
                found[-1].fault("discover", cause, f"pip install --force-reinstall {name}")
    origins: dict[int, tuple[str, str]] = {}  # parsing METADATA costs more than all the rest
    for point in points:
        package = re.split(r"[.:\s]", point.value)[0]
        if id(point.dist) not in origins:
            origins[id(point.dist)] = _origin(point.dist, package)
        plugin = Plugin(point.name, *origins[id(point.dist)], module=point.value)
        found.append(_Candidate(plugin, point, package))
    return sorted(
        found,
        key=lambda c: (not c.plugin.builtin, normalise(c.plugin.distribution), c.plugin.name),
    )


def _origin(dist: Distribution | None, default: str = "unknown") -> tuple[str, str]:
    """A distribution's name and version; its METADATA may be damaged or lost."""
    try:
        assert dist is not None
        return dist.metadata["Name"] or default, dist.metadata["Version"] or ""
    except Exception:
        return default, ""


def _explicit(extra: str | os.PathLike[str] | ModuleType | object) -> _Candidate:
    """The candidate for what the user named: `./my.py`, `package.module`, a module or an object."""
    if isinstance(extra, os.PathLike) or (isinstance(extra, str) and FILE.search(extra)):
        text = os.fspath(extra)
        path = Path(text).expanduser().absolute()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise PluginError(
                f"plugin {text} cannot be loaded: {path} {what}",
                remedy="-p ./FILE.py for a file, -p package.module for a module",
            )
        return _Candidate(Plugin(path.stem, module=text), path, module_name(path), required=True)
    if isinstance(extra, str):
        return _Candidate(Plugin(extra, module=extra), extra, extra.split(".")[0], required=True)
    home = extra.__name__ if isinstance(extra, ModuleType) else type(extra).__module__
    name = str(getattr(extra, "__name__", type(extra).__name__))
    plugin = Plugin(name, module=home if name == home else f"{home}.{name}")
    return _Candidate(plugin, extra, home.split(".")[0], required=True)


def module_name(path: Path) -> str:
    """A name for sys.modules that no other module has; dataclasses and pickle look there."""
    return f"latentforge_file_{path.stem}_{zlib.crc32(bytes(path)):08x}"


def _unique(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Each thing once, however often it is mentioned."""
    seen: dict[tuple[str, str, object], _Candidate] = {}
    for candidate in candidates:
        plugin, source = candidate.plugin, candidate.source
        what = source if isinstance(source, EntryPoint | Path | str) else id(source)
        seen.setdefault((plugin.distribution, plugin.name, what), candidate)
    return list(seen.values())


def _switch_off(
    candidates: Sequence[_Candidate], off: Sequence[str], only: Sequence[str] | None
) -> None:
    """Mark what shall not be imported."""
    reasons = {
        c: f"-p no:{name}" for name in off for c in _named(candidates, name, f"-p no:{name}")
    }
    if only is not None:
        kept = {c for name in only for c in _named(candidates, name, ENVIRONMENT)}
        for candidate in candidates:
            if not candidate.required and candidate not in kept:
                reasons.setdefault(candidate, ENVIRONMENT)
    for candidate, reason in reasons.items():
        candidate.plugin = replace(candidate.plugin, status="disabled", off_by=reason)


def _named(candidates: Sequence[_Candidate], wanted: str, source: str) -> list[_Candidate]:
    """The candidates of that name, or else those of that distribution."""
    by_name = [c for c in candidates if c.plugin.is_called(wanted)]
    whole = [c for c in candidates if c.plugin.distribution and same(c.plugin.distribution, wanted)]
    if not by_name and not whole:
        close = closest(wanted, [c.plugin.name for c in candidates])
        message = f"{source}: there is no plugin {wanted!r}{suggest(close)}"
        raise UsageError(message, remedy="latentforge plugins list")
    return by_name or whole


def _load_all(candidates: Sequence[_Candidate], manager: pluggy.PluginManager) -> list[_Candidate]:
    """Import, validate and register; what the user named and an entry point loads comes once."""
    loaded: dict[int, tuple[object, Plugin]] = {}  # by identity; keeps the object, and so its id
    kept = []
    for candidate in candidates:
        kept.append(candidate)
        if candidate.plugin.status == "disabled" or candidate.problems:
            continue
        start = perf_counter()
        try:
            target = _import(candidate.source)
        except CAUGHT as error:
            candidate.caught("import", error)
            continue
        candidate.plugin = replace(candidate.plugin, seconds=perf_counter() - start)
        if id(target) not in loaded:
            _register(candidate, target, manager)
            if candidate.hooks:
                loaded[id(target)] = target, candidate.plugin
        elif candidate.required:
            kept.pop()
        else:
            twin = loaded[id(target)][1]
            cause = f"{candidate.plugin.module} is already loaded as {twin.qualifier}/{twin.name}"
            candidate.fault("register", cause)
    return kept


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
            return importlib.import_module(source)
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
    """Modules in `folder` can be imported, and hide no installed one."""
    path = str(folder)
    if path in sys.path:
        yield
        return
    sys.path.append(path)
    try:
        yield
    finally:
        if path in sys.path:
            sys.path.remove(path)


def _register(candidate: _Candidate, target: object, manager: pluggy.PluginManager) -> None:
    plugin = candidate.plugin
    name = f"{plugin.distribution}:{plugin.name}"
    if manager.has_plugin(name):
        cause = f"another plugin is called {plugin.name}, so {plugin.module} is not loaded"
        return candidate.fault("register", cause, "rename one of them (an object by __name__)")
    try:
        hooks = _good_hooks(candidate, target, manager)
        if hooks:
            candidate.hooks = _Hooks(hooks)
            manager.register(candidate.hooks, name)
    except CAUGHT as error:
        candidate.hooks = None
        candidate.kinds.clear()
        candidate.caught("register", error)


def _good_hooks(
    candidate: _Candidate, target: object, manager: pluggy.PluginManager
) -> dict[str, Callable[..., Any]]:
    """The hooks that can be called, by attribute; a fault for each that cannot."""
    api = getattr(target, "LATENTFORGE_API", PLUGIN_API)
    if api != PLUGIN_API:
        cause = f"made for plugin API {api}, this LatentForge speaks {PLUGIN_API}"
        candidate.fault("validate", cause)
        return {}
    hooks: dict[str, Callable[..., Any]] = {}
    for name in dir(target):
        options = manager.parse_hookimpl_opts(target, name)
        if options is None:
            if name.startswith("latentforge_") and inspect.isroutine(getattr(target, name)):
                cause = f"{name} is not marked as a hook"
                candidate.fault("validate", cause, "put @latentforge.hookimpl above it")
            continue
        hook, function = options["specname"] or name, getattr(target, name)
        wraps = options["wrapper"] or options["hookwrapper"]
        if fault := _hook_fault(hook, function, wraps):
            if hook in KIND_OF_HOOK or not options["optionalhook"]:
                candidate.fault("validate", *fault)
            continue
        hooks[name] = function
        candidate.kinds.append(KIND_OF_HOOK[hook])
    if not hooks and not candidate.problems:
        remedy = "mark its hook functions with @latentforge.hookimpl"
        candidate.fault("validate", f"{candidate.plugin.module} has no hooks", remedy)
    return hooks


def _hook_fault(hook: str, function: Callable[..., Any], wraps: bool) -> tuple[str, str] | None:
    """What keeps a hook from being called, and the remedy."""
    if hook not in KIND_OF_HOOK:
        return f"there is no hook {hook}{suggest(closest(hook, KIND_OF_HOOK))}", "rename it"
    if wraps:
        return f"{hook} is a wrapper, and hooks are called one by one", "drop the wrapper option"
    required = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if required:
        cause = f"{hook}({', '.join(required)}) takes arguments that the hook does not give"
        instance = ", or name an instance of the class" if required == ["self"] else ""
        return cause, f"define it as {hook}()" + instance
    return None


def _collect(
    candidate: _Candidate,
    manager: pluggy.PluginManager,
    owners: dict[tuple[str, str, str], str],
) -> None:
    """Call the hooks of one plugin and keep its good specs; `owners` are the plugins that offer
    each kind, qualifier and name."""
    others = manager.get_plugins() - {candidate.hooks}
    for kind in dict.fromkeys(candidate.kinds):
        try:
            results = manager.subset_hook_caller(kind.hook, others)()
            for spec in _specs(candidate, kind, results):
                _accept(candidate, kind, spec, owners)
        except CAUGHT as error:
            candidate.caught("collect", error, f"{kind.hook}: ")


def _specs(candidate: _Candidate, kind: Kind, results: list[Any]) -> Iterator[object]:
    for result in results or [None]:  # pluggy leaves out the result None
        if isinstance(result, Iterable) and not isinstance(result, str):
            yield from result
        else:
            cause = f"{kind.hook} returned {type(result).__name__}, not {kind.spec.__name__}s"
            candidate.fault("collect", cause, "yield each one, or return a list")


def _accept(
    candidate: _Candidate, kind: Kind, spec: object, owners: dict[tuple[str, str, str], str]
) -> None:
    name = getattr(spec, "name", None)
    what = f"{kind.singular} {name!r}: " if isinstance(name, str) else f"{kind.hook}: "
    faults = spec_faults(kind, spec)
    if isinstance(spec, kind.spec) and not faults:
        key = (kind.plural, normalise(candidate.plugin.qualifier), spec.name)
        if key not in owners:
            owners[key] = candidate.plugin.name
            candidate.offers.append((kind, spec))
            return
        faults = [f"plugin {owners[key]} already offers one of that name"]
    for fault in faults:
        candidate.fault("collect", what + fault)
