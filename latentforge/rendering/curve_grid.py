"""Draws grids of panels with curves, for signals and vectors, as matplotlib figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from latentforge.findings import CurveGrid
from latentforge.rendering.canvas import (
    LABEL,
    LEGEND,
    apply_style,
    create_chart_figure,
    escape_dollars,
    height,
    text_width,
    wrap,
)
from latentforge.rendering.images import Array, to_numpy
from latentforge.rendering.palette import HEAT, INK, colour

STYLES = ("-", "--", ":", "-.")
MAX_MARKED = 16  # curves with more values have no markers
WIDTHS = (5.6, 3.6, 2.8)  # of the panels in a grid of 1, 2 and 3 columns, inches
TOTAL = 11.0  # maximum width of all panels, inches
CAPTION = 7.5  # font size, points


def draw_curves(item: CurveGrid, note: str = "") -> Figure:
    """Draw a grid of panels with a common x axis. All panels share the y axis; those of a sequence
    share it in each column. Row titles are at the left, captions above the panels."""
    rows, columns = len(item.rows), max(map(len, item.rows))
    width = WIDTHS[columns - 1] if columns <= len(WIDTHS) else min(1.9, TOTAL / columns)
    captions = [[wrap(text, CAPTION, width * 0.9) for text in row] for row in item.captions]
    above = max((height(text, CAPTION) for row in captions for text in row), default=0.0)
    left = max((text_width(text, LABEL) for text in item.row_titles), default=0.0)
    right = max((text_width(text, LABEL) + 0.5 for text in item.curves), default=0.0)
    panel = (1.5 if columns <= len(WIDTHS) else 1.1) + above
    figure = create_chart_figure(
        max(columns * width + left + right + 0.7, 4.6), rows * panel + 0.6, item.title, note
    )
    share: Any = "col" if item.sequence else "all"
    grid = figure.subplots(rows, columns, squeeze=False, sharex="all", sharey=share)
    for r, row in enumerate(item.rows):
        for c in range(columns):
            axes = grid[r, c]
            if c >= len(row):
                axes.set_axis_off()
                continue
            _draw_panel(axes, item, row[c])
            titles = list(item.column_titles[c : c + 1]) if r == 0 else []
            titles += [text[c] for text in captions[r : r + 1] if c < len(text)]
            text = escape_dollars("\n".join(titles))
            axes.set_title(text, fontsize=CAPTION if captions else LABEL, color=INK, pad=3)
        if r < len(item.row_titles):
            text = escape_dollars(item.row_titles[r])
            style = {"rotation": 0, "ha": "right", "va": "center", "color": INK, "labelpad": 8}
            grid[r, 0].set_ylabel(text, **style)
    for c in range(columns):
        grid[-1, c].set_xlabel(escape_dollars(item.x_title), fontsize=LABEL - 1, color=INK)
    if item.sequence:
        _draw_colour_bar(figure, grid, item, item.rows[0][0])
    else:
        _draw_legend(grid[0, len(item.rows[0]) - 1], item)
    return figure


def _draw_panel(axes: Axes, item: CurveGrid, curves: Tensor) -> None:
    apply_style(axes)
    axes.tick_params(labelsize=LABEL - 2)
    axes.grid(color="0.93", lw=0.6)
    axes.set_axisbelow(True)
    values = _finite(curves)  # (n, C, L)
    x = np.arange(values.shape[2])
    marker = "o" if len(x) <= MAX_MARKED else None
    for n, curve in enumerate(values):
        for c, y in enumerate(curve):
            ink, style = _style(item, n, c, *values.shape[:2])
            axes.plot(x, y, color=ink, ls=style, lw=1.2, marker=marker, ms=2.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _style(item: CurveGrid, n: int, c: int, count: int, channels: int) -> tuple[Any, str]:
    """The colour and the dash of a curve: the colour shows the step of a sequence, else the
    channel, or the curve if there is one channel. The ends of a sequence are dashed."""
    if item.ends and n in (0, count - 1):
        return INK, "--"
    if item.sequence:
        return _step_colours(count)[n], "-"
    return colour(c if channels > 1 else n), STYLES[n % len(STYLES)]


def _step_colours(count: int) -> Array:
    """The colours of the steps of a sequence, (count, 4), without the brightest ones."""
    colours: Array = colormaps[HEAT](np.linspace(0.0, 0.88, count))
    return colours


def _draw_colour_bar(figure: Figure, grid: Array, item: CurveGrid, first: Tensor) -> None:
    """Draw the colours of the steps with the names of the first, the middle and the last one."""
    count = len(first)
    if count < 2:
        return
    steps = np.arange(count)[1:-1] if item.ends else np.arange(count)
    norm = BoundaryNorm(np.array([*steps, steps[-1] + 1]) - 0.5, len(steps))
    mappable = ScalarMappable(norm, ListedColormap(_step_colours(count)[steps]))
    bar = figure.colorbar(mappable, ax=grid.ravel().tolist(), aspect=30, pad=0.02)
    ticks = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if item.curves else []
    bar.set_ticks(ticks, labels=[escape_dollars(item.curves[i]) for i in ticks])
    bar.ax.tick_params(labelsize=LABEL - 1, labelcolor=INK, length=0)
    bar.minorticks_off()
    bar.outline.set_visible(False)


def _draw_legend(axes: Axes, item: CurveGrid) -> None:
    """Name the curves, and the channels if there are several."""
    count, channels = item.rows[0][0].shape[:2]
    entries = []
    for n in range(count if item.curves else 0):
        ink, style = _style(item, n, 0, count, channels)
        ink = "0.35" if channels > 1 else ink
        entries.append(Line2D([], [], color=ink, ls=style, label=escape_dollars(item.curves[n])))
    if channels > 1:
        names = [f"channel {c}" for c in range(channels)]
        entries += [Line2D([], [], color=colour(c), lw=3, label=n) for c, n in enumerate(names)]
    if entries:
        axes.legend(handles=entries, **LEGEND)


def _finite(curves: Tensor) -> Array:
    """Convert to floats, and infinities to NaN, which leaves a gap."""
    values = to_numpy(curves).astype(float)
    return np.where(np.isfinite(values), values, np.nan)
