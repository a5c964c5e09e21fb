"""Builds plotly figures from findings: data and layout only; `page.py` puts them on a page.

The page sets the colours of text, grid and background, so that a figure fits light and dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from latentforge.findings import Bars, Histogram, Lines, Scatter
from latentforge.rendering.histogram import Bins, compute_bins
from latentforge.rendering.html.paths import add_paths, escape_text, round_values, to_array
from latentforge.rendering.images import Array, can_share_unit
from latentforge.rendering.palette import COLOURS, SCALE, colour, scale_limits

# The markers of palette.py, in plotly's names
SYMBOLS = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("cross", "x", "triangle-left", "triangle-right", "pentagon"),
)


def lines(item: Lines, peers: Sequence[Lines] = ()) -> go.Figure:
    """A line chart; it shares its y range with the charts `peers`, which are shown beside it."""
    x = round_values(item.x)
    mode = "lines+markers" if len(x) <= 15 else "lines"
    figure = go.Figure()
    for i, (name, y) in enumerate(item.series.items()):
        line = {"color": colour(i), "width": 2}
        figure.add_scatter(x=x, y=round_values(y), name=escape_text(name), mode=mode, line=line)
    figure.update_yaxes(range=compute_range([item, *peers]))
    return apply_style(figure, item.x_title, item.y_title, hovermode="x unified")


def bars(item: Bars, peers: Sequence[Bars] = ()) -> go.Figure:
    """A bar chart; it shares its y range with the charts `peers`, which are shown beside it."""
    figure = go.Figure()
    labels = [escape_text(label) for label in item.labels]
    for i, (name, y) in enumerate(item.series.items()):
        figure.add_bar(x=labels, y=round_values(y), name=escape_text(name), marker_color=colour(i))
    figure.update_xaxes(type="category")  # labels such as "0" are names, not numbers
    figure.update_yaxes(range=compute_range([item, *peers]))
    return apply_style(figure, "", item.y_title, hovermode="x unified", barmode="group")


def compute_range(items: Sequence[Lines | Bars]) -> list[float] | None:
    """The y range of all items; it includes 0 for bars and for values that are all in [0, 1]."""
    arrays = [to_array(y).astype(float).ravel() for item in items for y in item.series.values()]
    values = np.concatenate([*arrays, [0.0] if isinstance(items[0], Bars) else []])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        low = 0.0
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    if low == high:
        return [low - margin, high + margin]
    return [low and low - margin, high and high + margin]


def histograms(item: Histogram) -> dict[str, go.Figure]:
    """A figure per panel, all with the same x range, so that panels can be compared."""
    bins_by_title, x_range = compute_bins(item.panels)
    return {title: _histogram(bins, x_range, item.normal) for title, bins in bins_by_title.items()}


def _histogram(bins: Bins, x_range: tuple[float, float], normal: bool) -> go.Figure:
    figure = go.Figure()
    if bins.reason:
        position = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
        figure.add_annotation(text=escape_text(bins.reason), **position)
        figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
        return apply_style(figure, "", "", showlegend=False)
    middle, width = (bins.edges[1:] + bins.edges[:-1]) / 2, bins.edges[1] - bins.edges[0]
    x, y = round_values(middle), round_values(bins.density)
    figure.add_bar(x=x, y=y, width=float(width), marker_color=colour(0))
    if normal:
        grid = np.linspace(*x_range, 80)
        x, y = round_values(grid), round_values(bins.normal(grid))
        figure.add_scatter(x=x, y=y, mode="lines", line={"color": colour(1), "width": 2})
    figure.update_traces(hoverinfo="x+y")
    figure.update_xaxes(nticks=4, tickangle=0, range=list(x_range))
    figure.update_yaxes(showticklabels=False, rangemode="tozero")
    return apply_style(figure, "", "", showlegend=False, bargap=0)


def scatter(item: Scatter, shown: Array) -> go.Figure:
    """A scatter plot of the points with the indices `shown`, with one trace per class, or one trace
    with a colour bar if there are values. `customdata` contains each point's position in `shown`;
    with values, `text` contains the name of its class."""
    points = to_array(item.points)[shown]
    figure = go.Figure()
    size, opacity = 5 if len(shown) > 1500 else 7, 0.4 if len(item.paths) > 1 else 0.9
    by_class = item.labels is not None and item.values is None
    if item.labels is not None:
        labels = to_array(item.labels)[shown]
        names = [*(item.classes or map(str, range(int(labels.max()) + 1)))]
    if by_class:
        groups = {name: np.flatnonzero(labels == i) for i, name in enumerate(names)}
    else:
        groups = {"codes": np.arange(len(shown))}
    for i, (name, members) in enumerate(groups.items()):
        x, y = map(round_values, points[members].T)
        symbol = SYMBOLS[i // len(COLOURS) % len(SYMBOLS)]
        outline = {"width": 0.6, "color": "rgba(255,255,255,0.6)"}  # visible in dark mode
        marker = {"color": colour(i), "size": size, "symbol": symbol, "line": outline}
        style: dict[str, Any] = {"mode": "markers", "marker": marker, "opacity": opacity}
        if item.values is not None:
            marker |= colour_by_values(item, shown)
            style |= {"showlegend": False, "opacity": 0.9}  # mixed colours would be other values
            if item.labels is not None:
                style["text"] = [escape_text(names[i]) for i in labels]
        figure.add_scatter(x=x, y=y, customdata=members.tolist(), name=escape_text(name), **style)
    add_paths(figure, item)
    x_title, y_title = item.axes
    legend = by_class or bool(item.paths)
    apply_style(figure, x_title, y_title, hovermode=False, showlegend=legend)
    if item.values is not None:  # the colour bar is at the bottom
        figure.update_layout(legend={"y": 1, "yref": "paper", "yanchor": "bottom"})
    positions = np.concatenate([to_array(tensor) for tensor in (item.points, *item.paths.values())])
    positions = positions[np.isfinite(positions).all(1)].astype(float)
    if len(positions) and can_share_unit(np.ptp(positions, axis=0)):
        figure.update_yaxes(scaleanchor="x", constrain="domain")
        figure.update_xaxes(constrain="domain", constraintoward="left")
    return figure


def colour_by_values(item: Scatter, shown: Array) -> dict[str, Any]:
    """The style of markers on the continuous scale of all values, with its colour bar."""
    values = to_array(item.values).astype(float)
    low, high = scale_limits(values.tolist())
    bar: dict[str, Any] = {"orientation": "h", "x": 0, "xanchor": "left"}
    bar |= {"y": 0, "yanchor": "bottom", "yref": "container", "thickness": 12, "outlinewidth": 0}
    bar |= {"ticks": "outside", "ticklen": 4, "exponentformat": "power"}
    bar |= {"title": {"text": escape_text(item.values_title), "side": "bottom"}}
    steps = [[i / (len(SCALE) - 1), fill] for i, fill in enumerate(SCALE)]
    limits = {"cmin": low, "cmax": high, "colorscale": steps, "showscale": True, "colorbar": bar}
    return {"color": round_values(values[shown]), **limits}


def apply_style(figure: go.Figure, x_title: str, y_title: str, **layout: Any) -> go.Figure:
    """Apply the common style: transparent background, horizontal legend, margins that fit."""
    axis: dict[str, Any] = {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4}
    axis["title_standoff"] = 10  # otherwise the y title may overlap long labels
    figure.update_xaxes(title_text=escape_text(x_title), **axis)
    figure.update_yaxes(title_text=escape_text(y_title), **axis)
    layout = {"showlegend": len(figure.data) > 1, "hovermode": "closest", **layout}
    return figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        legend_itemsizing="constant",
        hoverlabel={"namelength": -1},
        **layout,
    )


def as_dict(figure: go.Figure) -> dict[str, Any]:
    """Convert a figure to input of Plotly.newPlot, without the template, which sets colours."""
    content: dict[str, Any] = figure.to_plotly_json()
    content["layout"].pop("template", None)
    return content


def sample_evenly(labels: Sequence[int] | Array | None, total: int, limit: int) -> Array:
    """Sample at most `limit` of `total` indices with a fixed seed, and return them sorted. The
    classes get equal numbers, unless small classes have fewer."""
    random = np.random.default_rng(0)
    if total <= limit:
        return np.arange(total)
    if labels is None:
        return np.sort(random.choice(total, limit, replace=False))
    groups = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    sampled: list[Array] = []
    for classes_left, group in zip(range(len(groups), 0, -1), sorted(groups, key=len), strict=True):
        available = limit - sum(map(len, sampled))  # larger classes use what small classes leave
        sampled.append(group[: available // classes_left])
    return np.sort(np.concatenate(sampled))
