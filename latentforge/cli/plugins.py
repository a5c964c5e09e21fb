"""`latentforge plugins`: lists, shows, checks and creates plugins. Only `check --deep` imports
torch or NumPy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentforge.cli.output import (
    Globals,
    Json,
    Others,
    Sets,
    forge_of,
    parse_roles,
    print_result,
    table,
)
from latentforge.errors import LatentForgeError, MissingError, PluginError, UsageError
from latentforge.io.paths import quoted
from latentforge.io.text import counted
from latentforge.plugins.commands import names_by_distribution
from latentforge.plugins.registry import same_distribution
from latentforge.runtime.stdout import escape_controls, write_stdout
from latentforge.specs import KINDS

if TYPE_CHECKING:
    from latentforge.conformance.review import Result, Status
    from latentforge.forge import Forge
    from latentforge.plugins.registry import Plugin, Registry

STATUSES: tuple[Status, ...] = ("passed", "failed", "skipped", "not checked")

app = typer.Typer(
    help="List, check and create plugins.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_plugins(
    ctx: typer.Context,
    json: Json = False,
    requirements: Annotated[
        bool, typer.Option("--requirements", help="Print a requirements file for `pip install -r`.")
    ] = False,
) -> None:
    """List plugins: status, import time, and what they offer.

    The status is ok, disabled, failed or conflict.

    Example: latentforge plugins list

    Example: latentforge plugins list --requirements > requirements.txt
    """
    registry = forge_of(ctx, warn=False).registry  # the problems are printed below
    if requirements:
        pinned = _requirements(registry)
        print_result({"requirements": pinned}, json, pinned)
        return
    commands = names_by_distribution()
    facts = [_facts(registry, plugin, commands) for plugin in registry.plugins]
    keys = ("name", "distribution", "version", "status")
    rows = [
        [*(str(f[key]) for key in keys), f"{1000 * f['seconds']:.0f} ms", _format_offers(f)]
        for f in facts
    ]
    header = ["NAME", "DISTRIBUTION", "VERSION", "STATUS", "IMPORT", "OFFERS"]
    lines = table([header, *rows])
    for title, texts in (("problems:", registry.problems), ("notices:", registry.notices)):
        lines += [title, *(f"  {text}" for text in texts)] if texts else []
    print_result({"plugins": facts}, json, lines)


@app.command("show")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name from `latentforge plugins list`.")],
    json: Json = False,
) -> None:
    """Show one plugin: its origin, offer and faults.

    Example: latentforge plugins show autoencoder
    """
    registry = forge_of(ctx, warn=False).registry  # the problems are printed below
    plugin = find_plugin(registry, name)
    facts = _facts(registry, plugin, names_by_distribution())
    keys = ("name", "distribution", "version", "module", "status")
    rows = [[f"{key}:", str(facts[key])] for key in keys]
    lines = table([*rows, ["offers:", _format_offers(facts)]])
    lines += [f"problem: {problem}" for problem in plugin.problems]
    print_result(facts, json, [*lines, *(f"conflict: {text}" for text in facts["conflicts"])])


@app.command("check")
def check(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|PATH",
            help="Plugins or distributions, .py files, or folders of packages.  "
            "[default: all that are not built in]",
        ),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also build, train and explore; takes seconds per plugin."),
    ] = False,
    set_: Sets = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="C,H,W",
            help="The shape of one example: C,L for a signal, one number for a vector.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Check with the examples of a dataset."),
    ] = None,
    with_: Others = None,
    json: Json = False,
) -> None:
    """Check that plugins satisfy their contracts, and print what to fix.

    The exit code is 3 if a check fails, or 4 if a check could not be tried. The keys of --set begin
    with a component or its kind. --set, --shape, --data and --with apply to the checks of --deep.

    Example: latentforge plugins check ./latentforge-swirl --deep

    Example: latentforge plugins check swirl --deep --set model.latent_dim=2 --shape 1,64,64
    """
    options: Globals = ctx.obj
    forge, plugins = _select_plugins(options, targets or [])
    from latentforge.conformance.inputs import read_inputs
    from latentforge.conformance.review import review

    given = {"--set": set_, "--shape": shape, "--data": data, "--with": with_}
    if unused := [] if deep else [name for name, value in given.items() if value]:
        raise UsageError(f"only the checks of --deep use {unused[0]}", hint="add --deep")
    entries = [entry for plugin in plugins for entry in forge.registry.entries_of(plugin)]
    roles = parse_roles(with_)
    inputs = read_inputs(forge.registry, entries, set_ or (), data=data, shape=shape, roles=roles)
    root: Any = ctx.find_root().command
    results = []
    for result in review(forge, plugins, deep=deep, reserved={*root.commands}, inputs=inputs):
        results.append(result)
        if not json:
            suffix = f": {result.saw}" if result.saw else ""
            line = f"{result.status:12}{result.title}: {result.check}{suffix}"
            write_stdout(escape_controls(line))
    finish_review(results, deep, json)


def finish_review(results: Sequence[Result], deep: bool, json: bool) -> None:
    """Print the summary of a review. Raises PluginError if a check failed, and MissingError if one
    could not be tried."""
    statuses = [result.status for result in results]
    counts = {status: statuses.count(status) for status in STATUSES}
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    summary: dict[str, Any] = {
        "checks": [result.as_dict() for result in results],
        "deep": deep,
        **{status.replace(" ", "_"): count for status, count in counts.items()},
    }
    error: LatentForgeError | None = None
    if failed := [result for result in results if result.status == "failed"]:
        error = PluginError(
            f"{counted(len(results), 'check')}: {text}",
            details=[f"{r.title}: {r.check}: {r.hint}" for r in failed],
            hint="fix these; docs/contracts.md defines what each kind must provide",
        )
    elif missing := [result for result in results if result.status == "not checked"]:
        reasons: dict[str, str] = {}  # of each component, the first
        for result in missing:
            reasons.setdefault(result.title, result.saw)
        error = MissingError(
            f"{counted(len(missing), 'check')} of {len(results)} could not be tried: {text}",
            details=[f"{title}: {saw}" for title, saw in reasons.items()],
            hint="give what is missing; --set, --data, --shape and --with give it to the checks",
        )
    if error:
        error.result = summary
        raise error
    hint = "" if deep else "; --deep also builds, trains and explores"
    print_result({"status": "ok", **summary}, json, [f"{text}{hint}"])


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Lower-case, such as swirl for latentforge-swirl.")],
    kind: Annotated[
        str, typer.Option(help="model, loss, dataset, explorer, objective or callback.")
    ] = "model",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The parent of the new folder.  [default: .]")
    ] = None,
    json: Json = False,
) -> None:
    """Create a plugin package with working code and tests.

    Example: latentforge plugins new swirl --kind model
    """
    from latentforge.plugins.scaffold import new_plugin

    folder, files = new_plugin(name, kind, out)
    paths = [str(file) for file in files]
    lines = [*paths, f'next: cd {quoted(folder)} && pip install -e ".[test]" && pytest']
    print_result({"folder": str(folder), "files": paths}, json, lines)


def _select_plugins(options: Globals, targets: Sequence[str]) -> tuple[Forge, list[Plugin]]:
    """Return a Forge that has loaded the plugins to check, and these plugins."""
    modules = {target: modules_at(target) for target in targets}
    loaded = [module for found in modules.values() for module in found]
    if loaded:
        forge = Globals([*options.plugins, *loaded], options.off).forge(warn=False)
    else:
        forge = options.forge(warn=False)
    plugins = forge.registry.plugins
    if not targets:
        selected = [p for p in plugins if not p.builtin and p.status != "disabled"]
        if not selected:
            raise UsageError(
                "only built-in plugins are installed",
                hint="latentforge plugins check autoencoder, or ./my_plugin.py",
            )
        return forge, selected
    selected = []
    for target, found in modules.items():
        if found:
            selected += [p for p in plugins if p.module in found and p.status != "disabled"]
        else:
            named = [p.distribution and same_distribution(p.distribution, target) for p in plugins]
            members = [p for p, is_member in zip(plugins, named, strict=True) if is_member]
            selected += members or [find_plugin(forge.registry, target)]
    return forge, list(dict.fromkeys(selected))


def modules_at(target: str) -> list[str]:
    """Return what to load for a path: a .py file, or the hook modules of a package's folder. Empty
    for a name."""
    if target.endswith(".py"):
        return [target]
    if (Path(target) / "pyproject.toml").is_file():
        return modules_of(Path(target))
    if target.startswith((".", "/", "~")):
        raise no_package(Path(target))
    return []


def no_package(path: Path) -> MissingError:
    """Return the error about a path that is neither a plugin's file nor its package."""
    if not path.exists():
        return MissingError(f"{path} does not exist", hint="latentforge plugins list")
    root = next((up for up in path.parents if (up / "pyproject.toml").is_file()), None)
    hint = "the folder that contains pyproject.toml, or the .py file with the hooks"
    return MissingError(
        f"{path} is neither a .py file nor a folder with a pyproject.toml",
        hint=f"latentforge plugins check {as_argument(root)}" if root else hint,
    )


def find_plugin(registry: Registry, name: str) -> Plugin:
    """Return the plugin of that name. Raises UsageError if there is none, with how to install it if
    its package is in the working folder or is that folder."""
    try:
        return registry.plugin(name)
    except UsageError as error:
        names = (name, f"latentforge-{name}")
        folders = [Path(other) for other in names if "/" not in name]
        folders += [Path()] if Path.cwd().name in names else []
        folder = next((path for path in folders if (path / "pyproject.toml").is_file()), None)
        if folder is None:
            raise
        place = as_argument(folder)
        raise UsageError(
            f"plugin {name!r} is not installed",
            hint=f"pip install -e {place}, or `latentforge plugins check {place}`",
        ) from error


def modules_of(folder: Path) -> list[str]:
    """Make the hook modules in a package's pyproject.toml importable, and return their names."""
    from latentforge.config.request import read_toml

    file = folder / "pyproject.toml"
    points: Any = read_toml(file)
    for key in ("project", "entry-points", "latentforge"):
        points = points.get(key) if isinstance(points, dict) else None
    if not points or not isinstance(points, dict):
        raise UsageError(
            f"{file} has no [project.entry-points.latentforge]",
            hint='add it, with one line for each plugin: swirl = "latentforge_swirl"',
        )
    for place in (folder / "src", folder):
        if place.is_dir():
            sys.path.insert(0, os.fspath(place.absolute()))
    return [str(module) for module in points.values()]


def _facts(registry: Registry, plugin: Plugin, commands: dict[str, list[str]]) -> dict[str, Any]:
    offers: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for entry in registry.entries_of(plugin):
        offers[entry.kind.plural].append(entry.name)
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "status": registry.status_of(plugin),
        "seconds": round(plugin.seconds, 4),
        "offers": {kind: names for kind, names in offers.items() if names},
        "commands": commands.get(plugin.distribution, []) if plugin.status != "disabled" else [],
        "conflicts": registry.conflicts_of(plugin),
        "problems": [problem.as_dict() for problem in plugin.problems],
    }


def _format_offers(facts: dict[str, Any]) -> str:
    offers = {**facts["offers"], **({"commands": c} if (c := facts["commands"]) else {})}
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in offers.items())


def _requirements(registry: Registry) -> list[str]:
    """Return one line for each distribution whose plugins are in use. Plugins that are in no
    package, do not load, or have no version that pip accepts are listed as comments."""
    from packaging.version import InvalidVersion, Version

    lines: dict[str, None] = {}
    for plugin in registry.plugins:
        if plugin.status == "disabled":
            continue
        try:
            line = f"{plugin.distribution}=={Version(plugin.version)}"
        except InvalidVersion:
            source = plugin.distribution or plugin.module
            line = f"# {one_line_of(source)} is not in a package with a known version"
        if plugin.status == "failed":
            line = f"# {one_line_of(plugin.title)} does not load: plugins show {plugin.address}"
        lines[line] = None
    return list(lines)


def one_line_of(text: str) -> str:
    return " ".join(text.split())


def as_argument(folder: Path) -> str:
    """Return a folder as an argument that pip and `plugins check` do not take for a name."""
    return quoted(folder if folder.is_absolute() or not folder.name else f"./{folder}")
