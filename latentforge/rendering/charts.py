"""Draws curves, bar charts and histograms as matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latentforge.findings import Bars, Histogram, Lines
from latentforge.rendering.canvas import (
    LABEL,
    LEGEND,
    apply_style,
    create_chart_figure,
    escape_dollars,
    text_width,
)
from latentforge.rendering.histogram import Bins, compute_bins
from latentforge.rendering.images import Array, to_numpy
from latentforge.rendering.palette import COLOURS, INK, MARKERS, colour

STYLES = ("-", "--", "-.", ":")
MAX_MARKED = 40  # a curve with more points has no markers
NORMAL = "line: the normal density with the same mean and standard deviation"


def draw_lines(item: Lines, note: str = "") -> Figure:
    """Draw curves that differ in colour, dash and marker."""
    figure = create_chart_figure(6.4 + _legend_width(item.series), 3.9, item.title, note)
    axes = figure.subplots()
    apply_style(axes)
    axes.set(xlabel=escape_dollars(item.x_title), ylabel=escape_dollars(item.y_title))
    axes.grid(color="0.92", lw=0.8)
    axes.set_axisbelow(True)
    x = _replace_infinities(to_numpy(item.x))
    for i, (name, values) in enumerate(item.series.items()):
        mark = MARKERS[i % len(MARKERS)] if len(x) <= MAX_MARKED else "None"
        style = STYLES[i % len(STYLES)]
        axes.plot(
            x, _replace_infinities(to_numpy(values)), color=colour(i), ls=style, marker=mark, ms=4,
            lw=1.6, label=escape_dollars(name),
        )  # fmt: skip
    if len(x) and np.array_equal(x, np.round(x)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(item.series) > 1:
        axes.legend(**LEGEND)
    return figure


def draw_bars(item: Bars, note: str = "") -> Figure:
    """Draw groups of bars; the width depends on the number of groups and series."""
    groups, bars_per_group = len(item.labels), max(len(item.series), 1)
    width = min(max(4.6, 0.9 + groups * (0.3 + 0.16 * bars_per_group)), 12.0)
    figure = create_chart_figure(width + _legend_width(item.series), 3.7, item.title, note)
    axes = figure.subplots()
    frame_bars(axes, item, width - 0.9, bar_limits([item]))
    fill_bars(axes, item)
    if len(item.series) > 1:
        axes.legend(**LEGEND)
    return figure


def frame_bars(axes: Axes, item: Bars, width: float, limits: tuple[float, float]) -> None:
    """Draw a bar chart without its bars, in axes `width` inches wide."""
    apply_style(axes)
    groups = max(len(item.labels), 1)
    axes.set_xticks(range(len(item.labels)), [escape_dollars(label) for label in item.labels])
    if any(text_width(label, LABEL - 1) > 0.95 * width / groups for label in item.labels):
        for text in axes.get_xticklabels():
            text.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel=escape_dollars(item.y_title), xlim=(-0.6, groups - 0.4), ylim=limits)
    axes.axhline(0, color="0.55", lw=0.8)
    axes.grid(axis="y", color="0.92", lw=0.8)
    axes.set_axisbelow(True)


def fill_bars(axes: Axes, item: Bars, colours: Sequence[str] = ()) -> None:
    """Draw the bars. `colours` are the colours of the labels, if these are classes."""
    bars_per_group = max(len(item.series), 1)
    width = 0.8 / bars_per_group
    for i, (name, values) in enumerate(item.series.items()):
        positions = np.arange(len(values)) - 0.4 + width * (i + 0.5)
        heights = np.nan_to_num(np.asarray(values, dtype=float), nan=0.0, posinf=0.0, neginf=0.0)
        fill = list(colours) if colours and bars_per_group == 1 else colour(i)
        axes.bar(positions, heights, width * 0.94, color=fill, label=escape_dollars(name))


def bar_limits(items: Sequence[Bars]) -> tuple[float, float]:
    """The y limits for the bars of all items; they include 0 and leave a small margin."""
    heights = [float(h) for item in items for bars in item.series.values() for h in bars]
    heights = [h for h in heights if math.isfinite(h)]
    low, high = min([0.0, *heights]), max([0.0, *heights])
    if low == high:
        return 0.0, 1.0
    return low * 1.05, high * 1.05


def draw_histogram(item: Histogram, note: str = "") -> Figure:
    """Draw a panel per title, with the fitted normal density if `item.normal`."""
    count = max(len(item.panels), 1)
    columns = count_columns(count)
    rows = math.ceil(count / columns)
    width = 4.2 if count == 1 else min(2.2, 12.0 / columns)
    height = 3.0 if count == 1 else max(width * 0.75, 1.2)
    if item.normal:
        note = f"{NORMAL}\n{note}".strip()
    total = max(columns * width + 0.7, 4.6)
    figure = create_chart_figure(total, rows * height + 0.3, item.title, note)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    bins_by_title, x_range = compute_bins(item.panels)
    for i, (title, bins) in enumerate(bins_by_title.items()):
        _draw_panel(panels[i], title, bins, x_range, normal=item.normal)
        if i % columns == 0:
            panels[i].set_ylabel("density", fontsize=LABEL - 1, color=INK)
        if i + columns >= count:  # the lowest panel of its column
            panels[i].set_xlabel(escape_dollars(item.x_title), fontsize=LABEL - 1, color=INK)
    for axes in panels[len(item.panels) :]:
        axes.set_visible(False)
    return figure


def count_columns(count: int) -> int:
    """The number of panels per row: all panels if there are at most 5, else the columns of a
    near-square grid with at most 8 columns and few empty cells."""
    if count <= 5:
        return count
    square = math.ceil(math.sqrt(count))
    return min(8, min(square, square + 1, key=lambda columns: -count % columns))


def _draw_panel(
    axes: Axes, title: str, bins: Bins, x_range: tuple[float, float], *, normal: bool
) -> None:
    apply_style(axes)
    axes.set_title(escape_dollars(title), fontsize=LABEL, color=INK, pad=4)
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=LABEL - 2)
    if bins.reason:
        axes.text(0.5, 0.5, bins.reason, transform=axes.transAxes, ha="center", fontsize=8)
        axes.set(xticks=[], yticks=[])
        return
    width = np.diff(bins.edges)
    axes.bar(bins.edges[:-1], bins.density, width, align="edge", color=COLOURS[0], alpha=0.75)
    axes.set_xlim(x_range)
    if normal:
        x = np.linspace(*x_range, 200)
        axes.plot(x, bins.normal(x), color=COLOURS[2], lw=1.4)


def _legend_width(series: Mapping[str, object]) -> float:
    """The width in inches of a legend at the right; 0 for a single series."""
    if len(series) < 2:
        return 0.0
    return max(text_width(name, LABEL - 1) for name in series) + 0.6


def _replace_infinities(values: Array) -> Array:
    """Convert to floats, and infinities to NaN, which is drawn as a gap and ignored by axes."""
    x = values.astype(float)
    return np.where(np.isfinite(x), x, np.nan)
