"""Training curves for the report: a chart per metric, dotted for training, solid for validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from latentforge.findings import Bars
from latentforge.io.text import counted, were
from latentforge.rendering.html.figures import apply_style, as_dict, bars
from latentforge.rendering.html.page import plot
from latentforge.rendering.html.paths import escape_text, round_values
from latentforge.rendering.palette import colour
from latentforge.rendering.report.formatting import read_objects
from latentforge.runs.folder import METRICS, RunFolder

DASHES = {"train": "dot", "validation": "solid"}
MAX_POINTS = 2000  # about the maximum number of epochs in a curve
MAX_NAMED = 8  # maximum runs in a legend; with more, only the hover text names a run


def plot_curves(
    runs: Sequence[RunFolder], names: Sequence[str], warnings: list[str]
) -> list[tuple[str, str]]:
    """Return the name and the HTML chart of each metric: the loss and its terms first, then the
    other metrics.

    Runs share a chart if a metric has the same definition in all of them; otherwise each definition
    has a panel, with the definition below it. A metric that equals the loss, such as its only term,
    is not drawn again, and a standard error is not drawn.
    """
    histories = [read_history(run, warnings) for run in runs]
    lines = [line for history in histories for line in history]
    ordered = [key for split in DASHES for line in lines for key in _get_metrics(line, split)]
    errors = {f"{key}_se" for key in ordered}  # standard errors are no curves
    keys = [key for key in dict.fromkeys(ordered) if key not in errors]
    definitions = {key: group_by_definition(key, runs, histories) for key in keys}

    def is_loss(key: str, indices: list[int]) -> bool:
        """Whether the runs at `indices` have the same loss and log `key` with equal values."""
        if indices not in definitions.get("loss", {}).values():
            return False
        logged = [line for i in indices for line in histories[i]]
        metrics = [_get_metrics(line, split) for line in logged for split in DASHES]
        pairs = [(values.get("loss"), values.get(key)) for values in metrics]
        pairs = [pair for pair in pairs if pair != (None, None)]
        return bool(pairs) and all(
            isinstance(a, int | float)
            and isinstance(b, int | float)
            and math.isclose(a, b, rel_tol=1e-6)
            for a, b in pairs
        )

    charts = []
    for key in keys:
        panels = ""
        for definition, indices in definitions[key].items():
            if key != "loss" and is_loss(key, indices):
                continue
            equal = [k for k in keys if key == "loss" and k != key and is_loss(k, indices)]
            title = " = ".join([key, *equal])
            if len(definitions[key]) == 1:
                panels += _plot_curve(key, title, histories, names, indices)
            else:
                run_names = ", ".join(names[i] for i in indices)
                panel = _plot_curve(key, f"{title} of {run_names}", histories, names, indices)
                panels += f'<div>{panel}<p class="lf-note">{escape(definition)}</p></div>'
        charts += [(key, panels)] if panels else []
    return charts


def read_history(run: RunFolder, warnings: list[str]) -> list[dict[str, Any]]:
    """Read the epochs of a run, or some of them; missing ones at the end add a warning."""
    path, known = run.path / METRICS, len(warnings)
    history = read_objects(path, warnings, MAX_POINTS)
    last, epochs = history[-1].get("epoch") if history else 0, run.manifest["epochs"]
    if isinstance(last, int) and last < epochs and len(warnings) == known:
        warnings.append(f"{path} has {counted(last, 'epoch')}, but {epochs} {were(epochs)} trained")
    numbers = [str(line.get("epoch")) for line in history]
    if len({*numbers}) < len(numbers):
        warnings.append(f"{path} has lines that repeat an epoch")
    return history


def group_by_definition(
    key: str, runs: Sequence[RunFolder], histories: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, list[int]]:
    """Group the indices of the runs that have a metric by its definition. The definition is the
    protocol of the metric, or, for the loss, its name and the protocols of its terms."""
    indices = [
        i
        for i, history in enumerate(histories)
        if any(key in _get_metrics(line, split) for line in history for split in DASHES)
    ]
    protocols = [runs[i].manifest.get("protocol") or {} for i in indices]
    groups: dict[str, list[int]] = {}
    for i, protocol in zip(indices, protocols, strict=True):
        name = f"loss {runs[i].config['loss']['name']}"
        definition = name
        if all(protocols) and key == "loss":  # an unfinished run has no protocols
            terms = dict.fromkeys(k for line in histories[i] for k in _get_metrics(line, "train"))
            parts = [f"{k}: {protocol[k]}" for k in terms if k in protocol and k != "loss"]
            definition = "; ".join([name, *parts])
        elif all(protocols):
            definition = protocol.get(key, name)
        groups.setdefault(definition, []).append(i)
    return groups


def _plot_curve(
    key: str,
    title: str,
    histories: Sequence[list[dict[str, Any]]],
    names: Sequence[str],
    indices: Sequence[int],
) -> str:
    figure = go.Figure()
    for i in indices:
        points = {split: _get_points(histories[i], split, key) for split in DASHES}
        plotted = [split for split in DASHES if points[split]]
        for split in plotted:
            epochs, values = zip(*points[split], strict=True)
            figure.add_scatter(
                x=epochs,
                y=round_values(values),
                name=escape_text(f"{names[i]}, {split}" if len(names) > 1 else split),
                mode="lines" if len(epochs) > 3 else "lines+markers",
                line={"color": colour(i), "width": 2, "dash": DASHES[split]},
                showlegend=len(names) == 1 or split == plotted[-1],  # once per run
            )
    named = len(indices) <= MAX_NAMED
    hovermode = "x unified" if named else "closest"
    apply_style(figure, "epoch", "", hovermode=hovermode, showlegend=named)
    return plot({"figure": as_dict(figure)}, f"{title} by epoch", title)


def _get_points(history: Sequence[dict[str, Any]], split: str, key: str) -> list[tuple[Any, float]]:
    """The pairs (epoch, value) of a metric on a split."""
    points = [(line.get("epoch"), _get_metrics(line, split).get(key)) for line in history]
    return [(epoch, value) for epoch, value in points if isinstance(value, int | float)]


def _get_metrics(line: dict[str, Any], split: str) -> dict[str, Any]:
    metrics = line.get(split)
    return metrics if isinstance(metrics, dict) and "epoch" in line else {}


def plot_per_dimension(runs: Sequence[RunFolder], names: Sequence[str]) -> list[str]:
    """Bar charts of metrics per latent dimension, such as the KL, for at most the first
    MAX_NAMED runs."""
    series_by_key: dict[str, dict[str, list[float]]] = {}
    named, *others = [run.manifest.get("dimension_names") for run in runs[:MAX_NAMED]]
    for run, name in zip(runs[:MAX_NAMED], names[:MAX_NAMED], strict=True):
        for key, values in (run.manifest.get("per_dim") or {}).items():
            series_by_key.setdefault(key, {})[name] = list(values)
    charts = []
    for key, series in series_by_key.items():
        longest = max(map(len, series.values()))
        padded = {n: [*v, *[float("nan")] * (longest - len(v))] for n, v in series.items()}
        labels = [f"z{i}" for i in range(longest)]
        if isinstance(named, list) and len(named) == longest and all(o == named for o in others):
            labels = [str(label) for label in named]
        figure = bars(Bars(f"per_dim_{key}", key, labels, padded, ""))
        title = f"{key} of each latent dimension"
        title += f" of {next(iter(series))}" if len(series) == 1 < len(runs) else ""
        title += f", first {MAX_NAMED} runs" if len(runs) > MAX_NAMED else ""
        charts.append(plot({"figure": as_dict(figure)}, title, title))
    return charts
