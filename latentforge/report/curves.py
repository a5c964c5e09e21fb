"""Training curves of one run or of several: a chart a figure, training dotted, validation whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from latentforge.drawing.html import plot
from latentforge.drawing.html_figures import as_dict, bars, numbers, styled, text
from latentforge.drawing.palette import colour
from latentforge.findings import Bars
from latentforge.report.values import read_lines
from latentforge.run import Run

DASHES = {"train": "dot", "validation": "solid"}


def curves(runs: Sequence[Run], names: Sequence[str], warnings: list[str]) -> list[tuple[str, str]]:
    """Figures and their fragments: the loss and its terms first, then the other figures."""
    histories = [read_lines(run.path / "metrics.jsonl", warnings) for run in runs]
    lines = [line for history in histories for line in history]
    ordered = [key for split in DASHES for line in lines for key in _figures(line, split)]
    return [(key, _curve(key, histories, names)) for key in dict.fromkeys(ordered)]


def _curve(key: str, histories: Sequence[list[dict[str, Any]]], names: Sequence[str]) -> str:
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
    return plot({"figure": as_dict(figure)}, f"{key} by epoch", key)


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
