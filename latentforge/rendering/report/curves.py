"""Training curves for the report: a chart per metric, dotted for training, solid for validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from latentforge.findings import Bars
from latentforge.rendering.html.figures import as_dict, bars, styled
from latentforge.rendering.html.page import plot
from latentforge.rendering.html.paths import numbers, text
from latentforge.rendering.palette import colour
from latentforge.rendering.report.formatting import read_objects
from latentforge.runs.folder import RunFolder

DASHES = {"train": "dot", "validation": "solid"}
NAMED = 8  # maximum runs in a legend; with more, only the hover text names a run


def curves(
    runs: Sequence[RunFolder], names: Sequence[str], warnings: list[str]
) -> list[tuple[str, str]]:
    """Metric names and their charts as HTML: the loss and its terms first, then the other metrics.

    Runs share a chart if a metric has the same definition in all of them; otherwise each definition
    has a panel, with the definition below it. A metric that equals the loss, such as its only term,
    is not drawn again.
    """
    histories = [read_objects(run.path / "metrics.jsonl", warnings) for run in runs]
    lines = [line for history in histories for line in history]
    ordered = [key for split in DASHES for line in lines for key in _figures(line, split)]
    keys = list(dict.fromkeys(ordered))
    kinds = {key: alike(key, runs, histories) for key in keys}

    def is_loss(key: str, places: list[int]) -> bool:
        """Whether a metric equals the loss in all lines of these runs, which have the same loss."""
        if places not in kinds.get("loss", {}).values():
            return False
        own = [_figures(line, split) for i in places for line in histories[i] for split in DASHES]
        pairs = [(figures.get("loss"), figures.get(key)) for figures in own]
        pairs = [pair for pair in pairs if pair != (None, None)]
        return bool(pairs) and all(
            isinstance(a, int | float)
            and isinstance(b, int | float)
            and math.isclose(a, b, rel_tol=1e-6)
            for a, b in pairs
        )

    found = []
    for key in keys:
        panels = ""
        for what, places in kinds[key].items():
            if key != "loss" and is_loss(key, places):
                continue
            same = [k for k in keys if k != key and is_loss(k, places)] if key == "loss" else []
            title = " = ".join([key, *same])
            if len(kinds[key]) == 1:
                panels += _curve(key, title, histories, names, places)
            else:
                of = ", ".join(names[i] for i in places)
                panel = _curve(key, f"{title} of {of}", histories, names, places)
                panels += f'<div>{panel}<p class="lf-note">{escape(what)}</p></div>'
        found += [(key, panels)] if panels else []
    return found


def alike(
    key: str, runs: Sequence[RunFolder], histories: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, list[int]]:
    """The indices of the runs that have a metric, by its definition in them: its protocol; for the
    loss, its name and the protocols of its terms."""
    having = [
        i
        for i, history in enumerate(histories)
        if any(key in _figures(line, split) for line in history for split in DASHES)
    ]
    protocols = [runs[i].manifest.get("protocol") or {} for i in having]
    found: dict[str, list[int]] = {}
    for i, protocol in zip(having, protocols, strict=True):
        name = f"loss {runs[i].config['loss']['name']}"
        what = name
        if all(protocols) and key == "loss":  # an unfinished run has no protocols
            terms = dict.fromkeys(k for line in histories[i] for k in _figures(line, "train"))
            parts = [f"{k}: {protocol[k]}" for k in terms if k in protocol and k != "loss"]
            what = "; ".join([name, *parts])
        elif all(protocols):
            what = protocol.get(key, name)
        found.setdefault(what, []).append(i)
    return found


def _curve(
    key: str,
    title: str,
    histories: Sequence[list[dict[str, Any]]],
    names: Sequence[str],
    places: Sequence[int],
) -> str:
    figure = go.Figure()
    for i in places:
        history, name = histories[i], names[i]
        found = {split: _points(history, split, key) for split in DASHES}
        drawn = [split for split in DASHES if found[split]]
        for split in drawn:
            points, dash = found[split], DASHES[split]
            epochs, values = zip(*points, strict=True)
            figure.add_scatter(
                x=epochs,
                y=numbers(values),
                name=text(f"{name}, {split}" if len(names) > 1 else split),
                mode="lines" if len(points) > 3 else "lines+markers",
                line={"color": colour(i), "width": 2, "dash": dash},
                showlegend=len(names) == 1 or split == drawn[-1],  # once per run
            )
    few = len(places) <= NAMED
    styled(figure, "epoch", "", hovermode="x unified" if few else "closest", showlegend=few)
    return plot({"figure": as_dict(figure)}, f"{title} by epoch", title)


def _points(history: Sequence[dict[str, Any]], split: str, key: str) -> list[tuple[Any, float]]:
    """The epochs that have a value of the metric, with the value."""
    points = [(line.get("epoch"), _figures(line, split).get(key)) for line in history]
    return [(epoch, value) for epoch, value in points if isinstance(value, int | float)]


def _figures(line: dict[str, Any], split: str) -> dict[str, Any]:
    figures = line.get(split)
    return figures if isinstance(figures, dict) and "epoch" in line else {}


def per_dimension(runs: Sequence[RunFolder], names: Sequence[str]) -> list[str]:
    """Bar charts of metrics per latent dimension, such as the KL, for at most the first NAMED
    runs."""
    found: dict[str, dict[str, list[float]]] = {}
    for run, name in zip(runs[:NAMED], names[:NAMED], strict=True):
        for key, values in (run.manifest.get("per_dim") or {}).items():
            found.setdefault(key, {})[name] = list(values)
    charts = []
    for key, series in found.items():
        longest = max(map(len, series.values()))
        padded = {n: [*v, *[float("nan")] * (longest - len(v))] for n, v in series.items()}
        labels = [f"z{i}" for i in range(longest)]
        figure = bars(Bars(f"per_dim_{key}", key, labels, padded, ""))
        title = f"{key} of each latent dimension"
        title += f" of {next(iter(series))}" if len(series) == 1 < len(runs) else ""
        title += f", first {NAMED} runs" if len(runs) > NAMED else ""
        charts.append(plot({"figure": as_dict(figure)}, title, title))
    return charts
