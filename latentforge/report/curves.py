"""Training curves of one run or of several: a chart a figure, training dotted, validation whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from latentforge.drawing.html import plot
from latentforge.drawing.html_figures import as_dict, bars, styled
from latentforge.drawing.html_paths import numbers, text
from latentforge.drawing.palette import colour
from latentforge.findings import Bars
from latentforge.report.values import read_lines
from latentforge.run import Run

DASHES = {"train": "dot", "validation": "solid"}


def curves(runs: Sequence[Run], names: Sequence[str], warnings: list[str]) -> list[tuple[str, str]]:
    """Figures and their fragments: the loss and its terms first, then the other figures.

    A figure that is the loss itself, such as the only term there is, is not drawn again.
    """
    histories = [read_lines(run.path / "metrics.jsonl", warnings) for run in runs]
    lines = [line for history in histories for line in history]
    ordered = [key for split in DASHES for line in lines for key in _figures(line, split)]
    keys = list(dict.fromkeys(ordered))
    same = [key for key in keys if key != "loss" and _is_loss(key, lines)]
    titles = {"loss": " = ".join(["loss", *same])}
    return [
        (key, _curve(key, titles.get(key, key), histories, names))
        for key in keys
        if key not in same
    ]


def _is_loss(key: str, lines: Sequence[dict[str, Any]]) -> bool:
    """Whether a figure has the loss's values in all lines of all runs."""
    figures = [_figures(line, split) for line in lines for split in DASHES]
    values = [(found.get("loss"), found.get(key)) for found in figures]
    values = [pair for pair in values if pair != (None, None)]
    return bool(values) and all(
        isinstance(a, int | float)
        and isinstance(b, int | float)
        and math.isclose(a, b, rel_tol=1e-6)
        for a, b in values
    )


def _curve(
    key: str, title: str, histories: Sequence[list[dict[str, Any]]], names: Sequence[str]
) -> str:
    figure = go.Figure()
    for i, (history, name) in enumerate(zip(histories, names, strict=True)):
        for split, dash in DASHES.items():
            points = [(line["epoch"], _figures(line, split).get(key)) for line in history]
            points = [(epoch, value) for epoch, value in points if isinstance(value, int | float)]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            figure.add_scatter(
                x=epochs,
                y=numbers(values),
                name=text(f"{name}, {split}" if len(names) > 1 else split),
                mode="lines" if len(points) > 3 else "lines+markers",
                line={"color": colour(i), "width": 2, "dash": dash},
            )
    styled(figure, "epoch", "", hovermode="x unified", showlegend=True)
    return plot({"figure": as_dict(figure)}, f"{title} by epoch", title)


def _figures(line: dict[str, Any], split: str) -> dict[str, Any]:
    figures = line.get(split)
    return figures if isinstance(figures, dict) and "epoch" in line else {}


def per_dimension(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Bars for figures of each latent dimension, such as its KL."""
    found: dict[str, dict[str, list[float]]] = {}
    for run, name in zip(runs, names, strict=True):
        for key, values in (run.manifest.get("per_dim") or {}).items():
            found.setdefault(key, {})[name] = list(values)
    charts = []
    for key, series in found.items():
        longest = max(map(len, series.values()))
        padded = {n: [*v, *[float("nan")] * (longest - len(v))] for n, v in series.items()}
        labels = [f"z{i}" for i in range(longest)]
        figure = bars(Bars(f"per_dim_{key}", key, labels, padded, ""))
        title = f"{key} of each latent dimension"
        charts.append(plot({"figure": as_dict(figure)}, title, title))
    return charts
