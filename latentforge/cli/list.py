"""`latentforge list`, `show` and `runs`: list components and runs. They do not import torch."""

from __future__ import annotations

import json as js
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentforge.cli.output import Json, forge_of, format_splits, print_result, table
from latentforge.errors import (
    LatentForgeError,
    MissingError,
    UsageError,
    did_you_mean,
    similar_paths,
)
from latentforge.specs import KINDS, Kind

DEFAULT = Path("runs")  # the folder of runs that have no other place

if TYPE_CHECKING:
    from latentforge.config.validation import Option
    from latentforge.plugins.registry import Entry, Registry


def list_components(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}.")] = None,
    json: Json = False,
) -> None:
    """List the components of one kind, or of all kinds.

    Example: latentforge list models
    """
    kinds = [get_kind(kind)] if kind else list(KINDS.values())
    registry = forge_of(ctx).registry
    entries_by_kind = {k.plural: registry.entries(k.plural) for k in kinds}
    lines: list[str] = []
    for plural, entries in entries_by_kind.items():
        rows = [
            [e.name, e.spec.summary, "" if e.plugin.builtin else f"({e.qualified})"]
            for e in entries
        ]
        lines += [plural, *table(rows or [["(none)", "", ""]], "  ")]
    result = {plural: [_brief(e) for e in entries] for plural, entries in entries_by_kind.items()}
    print_result(result, json, lines)


def show(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}; may be left out.")],
    name: Annotated[str | None, typer.Argument(help="A name from `latentforge list`.")] = None,
    json: Json = False,
) -> None:
    """Show a component with its options, or a run with its settings.

    Example: latentforge show model ae

    Example: latentforge show runs/ae-digits-1
    """
    from latentforge.config.schema import DataConfig
    from latentforge.config.validation import describe

    if name is None and (Path(kind) / "run.json").is_file():
        show_run(Path(kind), json)
        return
    registry = forge_of(ctx).registry
    if name is None:
        kind, name = find_component(registry, kind)
    entry = registry.get(get_kind(kind).plural, name)
    spec, plural = entry.spec, entry.kind.plural
    options = describe(spec.config)
    if plural == "datasets":
        options += describe(DataConfig)  # the core's keys of the section [data]
    facts = _facts(entry)
    inference = getattr(spec, "inference", None)
    sampler = describe(inference) if inference else []
    lines = [
        f"{entry.kind.singular} {entry.name}: {spec.summary}",
        *table([[f"{key}:", _format_fact(value)] for key, value in facts.items()], "  "),
        *(["", f"options{_doc_of(spec.config)}"] if options else ["  no options"]),
        *_option_table(options),
        *(["", f"inference options{_doc_of(inference)}"] if sampler else []),
        *_option_table(replace(option, name=f"sampler.{option.name}") for option in sampler),
    ]
    if plural == "presets":
        lines += ["", Path(spec.path).read_text("utf-8", errors="replace")]
    result = {**_brief(entry), **facts, "options": [vars(option) for option in options]}
    if sampler:
        result["inference"] = [vars(option) for option in sampler]
    print_result(result, json, lines)


def show_run(path: Path, json: bool) -> None:
    """Print the settings and the metrics of a run, and the runs that it uses."""
    from latentforge.io.toml import format_toml
    from latentforge.runs.folder import open_folder
    from latentforge.runs.roles import config_to_repeat, find_used_runs

    run = open_folder(path)
    used = find_used_runs(run)
    lines = [f"run {path}: {run.status}", *(f"uses {other.describe()}" for other in used)]
    lines += [*format_splits(run), "", format_toml(config_to_repeat(run))]
    result = {**run.summary(), "uses": [other.as_dict() for other in used], "config": run.config}
    print_result(result, json, lines)


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs.")] = DEFAULT,
    json: Json = False,
) -> None:
    """List the runs in a folder.

    Example: latentforge runs runs
    """
    from latentforge.runs.folder import MANIFEST, find_run_folders, read_manifest

    if not folder.is_dir():
        raise MissingError(f"no folder {folder}", hint=find_folder(folder))
    facts: list[dict[str, Any]] = []
    for path in [folder] if (folder / MANIFEST).is_file() else find_run_folders(folder):
        try:
            facts.append(_run_facts(path, read_manifest(path)))
        except LatentForgeError as error:
            facts.append({"run": str(path), "status": f"unreadable: {error.message}"})
    keys = ["run", "status", "model", "data", "epochs"]
    keys += ["uses"] if any(run.get("uses") for run in facts) else []
    rows = [[*(str(run.get(key, "")) for key in keys), _format_metrics(run)] for run in facts]
    header = [[*(key.upper() for key in keys), "METRICS"]] if rows else [[f"no runs in {folder}"]]
    print_result({"runs": facts}, json, table(header + rows))


def find_folder(missing: Path) -> str:
    """Return the hint about a folder of runs that does not exist."""
    from latentforge.runs.folder import find_run_folders

    others = {run.parent for run in find_run_folders(missing.parent)} - {missing.parent}
    if close := similar_paths(missing, sorted(others)):
        return close
    if next(find_run_folders(DEFAULT), None):
        return "latentforge runs"
    return "`latentforge train ae` makes a run, which `latentforge runs` then lists"


def _doc_of(config: Any) -> str:
    """The docstring of a class of options in brackets; empty if the author wrote none."""
    doc = " ".join(str(config.__doc__ or "").split())
    own = doc and not doc.startswith(f"{config.__name__}(")  # the default docstring of dataclass
    return f" ({doc})" if own else ""


def _option_table(options: Iterable[Option]) -> list[str]:
    rows = [[o.name, o.type, js.dumps(o.default, default=str)] for o in options]
    return table(rows, "  ")


def find_component(registry: Registry, name: str) -> tuple[str, str]:
    """Return the kind and the name of the only component with this name. Raises UsageError if there
    is none, or if several kinds have one."""
    kinds = [
        kind.singular
        for kind in KINDS.values()
        if any(name in (e.name, e.qualified) for e in registry.entries(kind.plural))
    ]
    if len(kinds) == 1:
        return kinds[0], name
    if kinds:
        commands = [f"latentforge show {kind} {name}" for kind in kinds]
        raise UsageError(f"{name!r} is a component of several kinds", hint=" or ".join(commands))
    names = [e.name for kind in KINDS.values() for e in registry.entries(kind.plural)]
    if name in {n for kind in KINDS.values() for n in (kind.plural, kind.singular)}:
        plural = get_kind(name).plural
        raise UsageError(
            f"give the name of a component of {plural}", hint=f"latentforge list {plural}"
        )
    close = did_you_mean(name, names) or "latentforge list"
    raise UsageError(f"no component is named {name!r}", hint=close)


def get_kind(name: str) -> Kind:
    """Return the kind with this plural or singular name."""
    for kind in KINDS.values():
        if name in (kind.plural, kind.singular):
            return kind
    names = [n for kind in KINDS.values() for n in (kind.plural, kind.singular)]
    hint = did_you_mean(name, names) or f"choose one of {', '.join(KINDS)}"
    raise UsageError(f"unknown kind {name!r}; {hint}")


def _run_facts(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    from latentforge.runs.folder import RunFolder, status_of
    from latentforge.runs.roles import find_used_runs

    used = find_used_runs(RunFolder(path, manifest))
    return {
        "run": str(path),
        "status": status_of(path, manifest),
        "model": manifest["config"]["model"]["name"],
        "data": manifest["config"]["data"]["name"],
        "epochs": manifest.get("epochs", 0),
        "created": manifest.get("created", ""),
        "uses": "; ".join(run.describe() for run in used),
        "metrics": manifest["metrics"],
    }


def _format_metrics(run: dict[str, Any]) -> str:
    """Format the test metrics, or the validation metrics of a run that has no test metrics yet."""
    metrics = run.get("metrics", {})
    split = "test" if metrics.get("test") else "validation"
    values = metrics.get(split, {}).items()
    shown = [f"{name} {'-' if value is None else format(value, '.4g')}" for name, value in values]
    return "  ".join([split, *shown]) if shown else ""


def _brief(entry: Entry) -> dict[str, Any]:
    plugin = entry.plugin
    return {
        "kind": entry.kind.singular,
        "name": entry.name,
        "summary": entry.spec.summary,
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
    }


def _facts(entry: Entry) -> dict[str, Any]:
    """Collect what `show` prints about a spec besides its name, summary and options."""
    spec = entry.spec
    facts: dict[str, Any] = {"plugin": entry.plugin.name, "qualified": entry.qualified}
    for key in (
        "provides",
        "needs",
        "default_loss",
        "train",
        "splits",
        "protocol",
        "labels",
        "default",
    ):
        value = getattr(spec, key, None)
        if callable(value):
            facts[key] = "depends on the options"
        elif isinstance(value, bool):
            facts[key] = value
        elif isinstance(value, Mapping):
            if value:
                facts[key] = ", ".join(f"{name} {item}" for name, item in value.items())
        elif isinstance(value, (frozenset, tuple)):
            facts[key] = ", ".join(sorted(value)) or "nothing"
        elif value is not None:
            facts[key] = str(value)
    if roles := _format_roles(spec):
        facts["takes"] = ", ".join(roles)
    if default := getattr(spec, "searches", None):
        facts["objective"] = (
            f"{default} unless --set objective=NAME; --set also accepts its options "
            f"(latentforge show objective {default})"
        )
    for key in ("better", "path"):
        if value := getattr(spec, key, None):
            facts[key] = str(value)
    return facts


def _format_fact(fact: str | bool) -> str:
    return fact if isinstance(fact, str) else "yes" if fact else "no"


def _format_roles(spec: Any) -> list[str]:
    """The other runs that a component uses, as arguments of the command line."""
    optional = getattr(spec, "optional_roles", None) or {}
    roles = {**(getattr(spec, "roles", None) or {}), **optional}
    return [
        f"--with {role}=RUN ({'optional; ' * (role in optional)}needs {', '.join(sorted(needs))})"
        for role, needs in roles.items()
    ]
