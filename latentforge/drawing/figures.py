"""The figure of each kind of finding that one picture shows."""

from __future__ import annotations

from matplotlib.figure import Figure

from latentforge.drawing.charts import draw_bars, draw_histogram, draw_lines
from latentforge.drawing.maps import draw_scatter
from latentforge.drawing.png import draw_grid
from latentforge.findings import Bars, Histogram, ImageGrid, Lines, Scatter

Drawable = ImageGrid | Scatter | Lines | Bars | Histogram


def draw(item: Drawable, note: str = "") -> Figure:
    """A finding as a figure, `note` at its foot; `figure.savefig(path)` writes it."""
    match item:
        case ImageGrid():
            return draw_grid(item, note)
        case Scatter():
            return draw_scatter(item, note)
        case Lines():
            return draw_lines(item, note)
        case Bars():
            return draw_bars(item, note)
        case Histogram():
            return draw_histogram(item, note)
