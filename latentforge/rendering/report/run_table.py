"""Builds the tables of the report from run.json and evaluations.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentforge.config.changes import flatten
from latentforge.config.inference import format_sampler
from latentforge.config.schema import AS_TRAINED
from latentforge.io.text import pluralized
from latentforge.io.toml import format_toml
from latentforge.rendering.report.formatting import format_number, read_objects
from latentforge.runs.folder import RunFolder
from latentforge.runs.roles import config_to_repeat, find_used_runs

SPLITS = ("test", "validation", "train")
KEYS = ("split", "checkpoint", "sampler", "metrics")  # of an evaluation; equal ones are one row
MAX_CLASSES = 20  # maximum number of classes in the header


def describe_run(run: RunFolder, name: str) -> dict[str, Any]:
    """Describe a run for the header: model, loss, data, status, duration, notes and diagnoses."""
    manifest, config, data = run.manifest, run.config, run.manifest["data"]
    images = data["images"] if isinstance(data["images"], Mapping) else {}
    best = manifest.get("best") or {}
    notes = []
    if best.get("epoch", manifest.get("epochs")) != manifest.get("epochs"):
        notes.append(f"Metrics are from the last epoch; the best epoch was {best['epoch']}.")
    if manifest.get("weights", AS_TRAINED) != AS_TRAINED:
        notes.append(f"Evaluated weights: {manifest['weights']}.")
    if manifest.get("stopped"):
        notes.append(str(manifest["stopped"]))
    epochs, steps = manifest.get("epochs", 0), manifest.get("steps", 0)
    return {
        "name": name,
        "path": str(run.path),
        "model": config["model"]["name"],
        "loss": config["loss"]["name"],
        "data": config["data"]["name"],
        "shape": " x ".join(map(str, data["shape"])),
        "images": ", ".join(f"{count:,} {split}" for split, count in images.items()),
        "classes": describe_classes(data),
        "fingerprint": data["fingerprint"],
        "status": run.status,
        "error": manifest.get("error", ""),
        "created": manifest.get("created", ""),
        "training": f"{format_number(epochs)} {pluralized(epochs, 'epoch')}, "
        f"{format_number(steps)} {pluralized(steps, 'step')} in "
        f"{manifest.get('seconds') or 0:,.1f} s",
        "uses": [used.describe() for used in find_used_runs(run)],
        "notes": notes,
        "findings": [f for f in manifest.get("findings") or [] if isinstance(f, Mapping)],
    }


def describe_classes(data: Mapping[str, Any]) -> str:
    """The number of training images of each class, for example `cat 60, dog 40`."""
    splits = data.get("class_counts")
    counts = splits.get("train") if isinstance(splits, Mapping) else None
    if not isinstance(counts, Mapping):
        return ""
    listed = [f"{name} {format_number(count)}" for name, count in counts.items()]
    more = [f"and {len(listed) - MAX_CLASSES} more"] if len(listed) > MAX_CLASSES else []
    return ", ".join(listed[:MAX_CLASSES] + more)


def create_metric_table(runs: Sequence[RunFolder], names: Sequence[str]) -> dict[str, Any]:
    """Create the table of metrics. For one run it has a column per split. For several runs it has a
    column per run, with the test metrics, or with the validation metrics if no run has test
    metrics."""
    if len(runs) == 1:
        metrics = runs[0].metrics
        columns = {split: metrics[split] for split in SPLITS if metrics.get(split)}
        caption = "Metrics at the end of training"
    else:
        split = "test" if any(run.metrics.get("test") for run in runs) else "validation"
        columns = {n: run.metrics.get(split) or {} for n, run in zip(names, runs, strict=True)}
        caption = f"Metrics on the {split} images at the end of training"
    protocols = join_protocols(runs, names)
    losses = [run.config["loss"]["name"] for run in runs]
    if "loss" in protocols and len(set(losses)) > 1:
        kinds = ", ".join(f"{loss} in {n}" for n, loss in zip(names, losses, strict=True))
        protocols["loss"] += f"; not comparable between the runs: {kinds}"
    rows = join_rows([*columns.values()])
    if "train" in columns and "train" in protocols:
        caption += f"; train: {protocols['train']}"
    return {"caption": caption, "columns": list(columns), "rows": rows, "protocols": protocols}


def join_protocols(runs: Sequence[RunFolder], names: Sequence[str]) -> dict[str, str]:
    """The protocol of each metric. If it differs between runs, each protocol is prefixed with the
    names of its runs."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for run, name in zip(runs, names, strict=True):
        for metric, protocol in (run.manifest.get("protocol") or {}).items():
            pairs.setdefault(metric, []).append((protocol, name))
    return {metric: "; ".join(group_by_protocol(group)) for metric, group in pairs.items()}


def group_by_protocol(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """List each protocol of the (protocol, name) pairs once. If there are several protocols, each
    is prefixed with its names."""
    names_by_protocol: dict[str, list[str]] = {}
    for protocol, name in pairs:
        names_by_protocol.setdefault(protocol, []).append(name)
    if len(names_by_protocol) == 1:
        return list(names_by_protocol)
    return [f"{', '.join(names)}: {protocol}" for protocol, names in names_by_protocol.items()]


def join_rows(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """A row for each metric that any column has, in order of first appearance."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "") for column in columns]) for name in names]


def find_differing_rows(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The rows with different values in the columns."""
    rows = join_rows(columns)
    return [(name, values) for name, values in rows if any(v != values[0] for v in values)]


def read_evaluations(
    runs: Sequence[RunFolder], names: Sequence[str], warnings: list[str]
) -> list[dict[str, Any]]:
    """Read evaluations.jsonl, newest first within a run. Identical rows are listed once."""
    rows: dict[str, dict[str, Any]] = {}
    for run, name in zip(runs, names, strict=True):
        for line in read_objects(run.path / "evaluations.jsonl", warnings):
            if not isinstance(line.get("metrics"), Mapping):
                continue
            key = repr((name, *(line.get(k) for k in KEYS)))
            rows.pop(key, None)
            other_data = line.get("fingerprint") != run.manifest["data"]["fingerprint"]
            protocol = line.get("protocol") if isinstance(line.get("protocol"), Mapping) else {}
            fields = {"name": name, "other_data": other_data, "protocol": protocol}
            sampler = line.get("sampler")
            fields["sampler"] = format_sampler(sampler) if isinstance(sampler, Mapping) else ""
            rows[key] = {**line, **fields, "rows": join_rows([line["metrics"]])}
    return list(rows.values())[::-1]


def find_differences(runs: Sequence[RunFolder]) -> list[tuple[str, list[Any]]]:
    """The options that differ between runs: key path, and one value per run."""
    columns = []
    for run in runs:
        settings = {key: "unset" if v is None else v for key, v in flatten(run.config).items()}
        fingerprint = run.manifest["data"]["fingerprint"][:12]
        columns.append({**settings, "data fingerprint": fingerprint})
    return find_differing_rows(columns)


def describe_settings(run: RunFolder, name: str) -> dict[str, Any]:
    """Describe the settings of a run: configuration as TOML, plugins, environment and data."""
    manifest = run.manifest
    environment = dict(manifest.get("environment") or {})
    environment.pop("command", None)
    return {
        "name": name,
        "toml": format_toml(config_to_repeat(run)),
        "plugins": [(p["kind"], p["name"], _distribution(p)) for p in manifest["plugins"]],
        "environment": {"latentforge": manifest.get("latentforge", ""), **environment},
        "data": manifest["data"],
        "facts": list((manifest.get("facts") or {}).items()),
    }


def _distribution(plugin: Mapping[str, Any]) -> str:
    packaged = f"{plugin.get('distribution') or ''} {plugin.get('version') or ''}".strip()
    return packaged or str(plugin.get("module", plugin["plugin"]))


def list_commands(run: RunFolder, name: str) -> dict[str, Any]:
    """The command lines that trained the run, if any, and one that repeats the training."""
    training_command = (run.manifest.get("environment") or {}).get("command") or []
    by_latentforge = any(word in ("train", "demo") for word in map(str, training_command))
    resumed = run.manifest.get("resumed")
    later = [entry.get("command") for entry in resumed] if isinstance(resumed, list) else []
    later = [command for command in later if isinstance(command, list) and "--resume" in command]
    lines = [training_command, *later] if by_latentforge else later
    arguments = ["latentforge", *create_plugin_arguments(find_unpackaged(run))]
    return {
        "name": name,
        "given": [["latentforge", *map(str, command)] for command in lines],
        "again": [*arguments, "train", "--config", f"{run.path.resolve().name}.toml"],
    }


def find_unpackaged(run: RunFolder) -> list[str]:
    """The `-p` values for the plugins of a run that are not from an installed package."""
    plugins = [p for p in run.manifest.get("plugins") or [] if not p.get("distribution")]
    modules = [(str(p.get("module", "")), p.get("plugin")) for p in plugins]
    return [m for m, name in modules if m.endswith(".py") or (m and m == name)]


def create_plugin_arguments(modules: Sequence[str]) -> list[str]:
    """The command-line arguments that load each plugin once."""
    return [argument for module in dict.fromkeys(modules) for argument in ("-p", module)]
