"""Finds plugins before any is imported: entry points, files, modules and objects."""

from __future__ import annotations

import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distribution, distributions, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from latentforge.errors import PluginError, PluginProblem, one_line, place_in, similar_paths
from latentforge.plugins.registry import Plugin, Registry, normalise, same_distribution
from latentforge.plugins.unknown import unknown_plugin
from latentforge.specs import Kind, Spec

PLUGINS, COMMANDS = "latentforge", "latentforge.commands"  # groups of entry points
ENVIRONMENT = "LATENTFORGE_PLUGINS"
UNKNOWN = "unknown"  # a distribution without readable METADATA
FILE = re.compile(rf"\.py$|[/{re.escape(os.sep)}]")


def from_environment(environ: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """The allow-list of LATENTFORGE_PLUGINS (comma separated); None if it is not set."""
    names = environ.get(ENVIRONMENT)
    return None if names is None else tuple(n for n in map(str.strip, names.split(",")) if n)


class Hooks:
    """The valid hooks of one plugin, as an object for pluggy. The plugin's own object may contain
    invalid hooks, or may not support the comparison and hashing that pluggy needs."""

    def __init__(self, hooks: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(hooks)

    def __dir__(self) -> Iterable[str]:
        return vars(self)  # pluggy inspects each name, which is slow for the names of `object`


@dataclass(eq=False)
class Candidate:
    """A plugin while it is discovered and loaded."""

    plugin: Plugin
    source: object  # what to load: an EntryPoint, the Path of a file, a module's name or an object;
    # None if there is nothing to load, such as a distribution with only commands
    package: str  # the top-level module of its code, to find its own frames in a traceback
    required: bool = False  # the user named it: its failure is an error
    problems: list[PluginProblem] = field(default_factory=list)
    error: BaseException | None = None
    hooks: Hooks | None = None
    observer_hooks: list[str] = field(default_factory=list)  # hooks that receive the events of runs
    specs: list[tuple[Kind, Spec]] = field(default_factory=list)

    def add_fault(self, stage: str, cause: str, hint: str = "") -> None:
        plugin = self.plugin
        if not hint and plugin.distribution:
            update = f"pip install --upgrade {plugin.distribution}"
            disabled = shlex.quote(f"no:{plugin.distribution}/{plugin.name}")
            hint = f"{update}, or disable it: latentforge -p {disabled} ..."
        hint = hint or f"fix {plugin.module}, or leave it out"
        origin = (plugin.name, plugin.distribution, plugin.version)
        self.problems.append(PluginProblem(*origin, stage, cause, hint))

    @contextmanager
    def capture_faults(self, stage: str, what: str = "") -> Iterator[None]:
        """Turn an exception of the plugin's code into a fault that names the line in that code."""
        try:
            yield
        except KeyboardInterrupt:
            raise  # Ctrl-C
        except BaseException as error:  # also SystemExit
            self.error, hint = error, ""
            if isinstance(error, ModuleNotFoundError) and error.name == self.package:
                hint = f"correct its entry point, {self.plugin.module}, or reinstall it"
                if self.required:
                    hint = "name a module that can be imported, or ./FILE.py; installed plugins "
                    hint += "are loaded without -p"
            self.add_fault(stage, what + one_line(error) + place_in(error, self.package), hint)

    def finish(self) -> Plugin:
        """The plugin in its final state. Raises PluginError if the user named it and it failed."""
        if self.plugin.status == "disabled" or (self.source is None and not self.problems):
            return self.plugin
        failed = not self.hooks or (bool(self.problems) and not (self.specs or self.observer_hooks))
        if failed and self.required:
            first, *more = self.problems
            raise PluginError(
                f"plugin {self.plugin.module} cannot be loaded: {first.stage}: {first.cause}",
                details=[problem.cause for problem in more],
                hint=first.remedy,
            ) from self.error
        problems = tuple(self.problems)
        return replace(self.plugin, status="failed" if failed else "ok", problems=problems)


def find_installed() -> list[Candidate]:
    """Return a candidate for each plugin and for each distribution that has only commands. The
    built-ins come first; the others are sorted by distribution and name."""
    candidates: list[Candidate] = []
    points, damaged = points_of(PLUGINS, COMMANDS)
    for dist, reason in damaged:
        name, version = origin_of(dist)
        hint = f"pip install --force-reinstall {name}"
        if name == UNKNOWN:
            hint = f"see {getattr(dist, '_path', dist.locate_file(''))}"
        candidates.append(Candidate(Plugin(name, name, version), None, ""))
        candidates[-1].add_fault("discover", reason, hint)
    origins: dict[int, tuple[str, str]] = {}  # a cache: parsing METADATA is the slowest part
    for point in sorted(points, key=lambda point: point.group):
        package = re.split(r"[.:\s]", point.value)[0]
        if id(point.dist) not in origins:
            origins[id(point.dist)] = origin_of(point.dist, package)
        elif point.group == COMMANDS:
            continue  # the plugins of its distribution decide whether it is enabled
        origin = origins[id(point.dist)]
        name, source = (point.name, point) if point.group == PLUGINS else (origin[0], None)
        candidates.append(Candidate(Plugin(name, *origin, module=point.value), source, package))
    if not any(c.plugin.builtin for c in candidates) and (stale := without_plugins("latentforge")):
        candidates.append(Candidate(Plugin("latentforge", "latentforge", stale.version), None, ""))
        folder = stale.locate_file("")
        cause = f"its metadata at {folder} lists no plugins and hides metadata that does"
        hint = "repeat pip uninstall latentforge until it finds none, then reinstall it"
        candidates[-1].add_fault("discover", cause, hint)
    return sorted(
        candidates,
        key=lambda c: (not c.plugin.builtin, normalise(c.plugin.distribution), c.plugin.name),
    )


def without_plugins(name: str) -> Distribution | None:
    """The first distribution of that name on sys.path if it has no plugins, else None."""
    try:
        found = distribution(name)
        return None if found.entry_points.select(group=PLUGINS) else found
    except Exception:
        return None


def points_of(*groups: str) -> tuple[list[EntryPoint], list[tuple[Distribution, str]]]:
    """Return the installed entry points of some groups, and the distributions whose entry points
    cannot be read. A malformed entry_points.txt of any package makes importlib's search fail."""
    try:
        all_points = entry_points()
        return [point for group in groups for point in all_points.select(group=group)], []
    except Exception:
        # pydantic and torch search all packages for their own plugins and would fail too
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        points: list[EntryPoint] = []
        damaged = []
        for dist in distributions():
            try:
                points += [point for point in dist.entry_points if point.group in groups]
            except Exception as error:
                damaged.append((dist, f"its entry_points.txt cannot be read: {one_line(error)}"))
        return points, damaged


def origin_of(dist: Distribution | None, default: str = UNKNOWN) -> tuple[str, str]:
    """The name and version of a distribution, whose METADATA may be damaged or missing."""
    try:
        assert dist is not None
        return dist.metadata["Name"] or default, dist.metadata["Version"] or ""
    except Exception:
        return default, ""


def candidate_for(extra: str | os.PathLike[str] | ModuleType | object) -> Candidate:
    """The candidate for a plugin that the user named: `./my.py`, `package.module`,
    `package:object`, a module or an object. Raises PluginError for a file that does not exist."""
    text = os.fspath(extra) if isinstance(extra, str | os.PathLike) else ""
    is_folder = bool(text) and Path(text, "pyproject.toml").is_file()
    if isinstance(extra, os.PathLike) or FILE.search(text) or is_folder:
        path = Path(text).expanduser().absolute()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            close = similar_paths(Path(text), Path(text).parent.glob("*.py"))
            hint = close or "-p ./FILE.py for a file, -p package.module for a module"
            if (path / "pyproject.toml").is_file():
                hint = f"pip install -e {shlex.quote(str(path))}, and leave out -p {text}"
            raise PluginError(f"plugin {text} cannot be loaded: {path} {what}", hint=hint)
        return Candidate(Plugin(path.stem, module=text), path, module_name(path), required=True)
    if isinstance(extra, str):
        package = re.split(r"[.:]", extra)[0]
        return Candidate(Plugin(extra, module=extra), extra, package, required=True)
    module = extra.__name__ if isinstance(extra, ModuleType) else type(extra).__module__
    name = str(getattr(extra, "__name__", type(extra).__name__))
    plugin = Plugin(name, module=module if name == module else f"{module}.{name}")
    return Candidate(plugin, extra, module.split(".")[0], required=True)


def module_name(path: Path) -> str:
    """A unique name for a file in sys.modules, where dataclasses and pickle look modules up."""
    return f"latentforge_file_{path.stem}_{zlib.crc32(bytes(path)):08x}"


def drop_duplicates(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates without duplicates, in order."""
    seen: dict[tuple[str, str, object], Candidate] = {}
    for candidate in candidates:
        plugin, source = candidate.plugin, candidate.source
        key = source if isinstance(source, EntryPoint | Path | str) else id(source)
        seen.setdefault((plugin.distribution, plugin.name, key), candidate)
    return list(seen.values())


def disable_candidates(
    candidates: Sequence[Candidate],
    off: Sequence[str],
    only: Sequence[str] | None,
    load_built_ins: Callable[[], Registry],
) -> None:
    """Mark the candidates that must not be imported. Raises UsageError for a name that is no
    plugin; `load_built_ins` then finds out whether it is a component."""

    def find(option: str, name: str) -> list[Candidate]:
        if found := find_candidates(candidates, name):
            return found
        owners, names = load_built_ins().owners(name), [c.plugin.name for c in candidates]
        raise unknown_plugin(name, names, owners, option)

    reasons = {c: f"-p no:{name}" for name in off for c in find("-p no:NAME", name)}
    if only is not None:
        enabled = set()
        for name in only:
            others = ",".join("NAME" if other == name else other for other in only)
            enabled.update(find(f"{ENVIRONMENT}={others}", name))
        for candidate in candidates:
            if not candidate.required and candidate not in enabled:
                reasons.setdefault(candidate, ENVIRONMENT)
    for candidate, reason in reasons.items():
        candidate.plugin = replace(candidate.plugin, status="disabled", off_by=reason)


def find_candidates(candidates: Sequence[Candidate], name: str) -> list[Candidate]:
    """The candidates of that name, or else all candidates of the distribution of that name."""
    return [c for c in candidates if c.plugin.has_name(name)] or [
        c
        for c in candidates
        if c.plugin.distribution and same_distribution(c.plugin.distribution, name)
    ]
