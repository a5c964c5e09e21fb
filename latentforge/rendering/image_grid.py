"""Draws grids of images, with titles and captions, as matplotlib figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from latentforge.findings import ImageGrid
from latentforge.rendering.canvas import (
    EDGE,
    LABEL,
    create_figure,
    escape_dollars,
    height,
    text_width,
    wrap,
)
from latentforge.rendering.images import Array, to_numpy, to_rgb
from latentforge.rendering.palette import HEAT, INK

CELL = 0.95  # column width, inches; at 150 dpi a 28-pixel image is drawn at five times its size
MAX_COLUMN_WIDTH = 1.7  # maximum width of a column with long captions, inches
WIDTH = 11.5  # maximum width of all columns, inches
MIN_WIDTH = 2.6  # minimum width of a figure, inches; its title needs several words per line
GAP = 0.06  # gap between two cells, as a fraction of a cell
CAPTION = 7.5  # font size, points
DENSE = 12  # a grid with more columns and rows than this has no gaps


@dataclass(frozen=True)
class Layout:
    """Cell positions in inches: cells of `cell_width` x `cell_height`, repeated every
    `column_step` x `row_step`."""

    columns: int
    cell_width: float
    cell_height: float
    column_step: float
    row_step: float
    caption: float  # height of the captions below a row; 0 if there are none
    size: float  # font size of column titles and captions, points

    @property
    def width(self) -> float:
        return self.columns * self.column_step - (self.column_step - self.cell_width)

    def height(self, rows: int) -> float:
        return rows * self.row_step - (self.row_step - self.cell_height - self.caption)


def compute_layout(grid: ImageGrid) -> Layout:
    """Compute the layout. Long captions make the cells wider, many columns make them narrower."""
    columns = max(len(row) for row in grid.rows)
    ratio = max(row.shape[-2] / row.shape[-1] for row in grid.rows)
    captions = [text for row in grid.captions for text in row]
    texts = [*captions, *grid.column_titles]
    gap = 0.0 if columns > DENSE and len(grid.rows) > DENSE and not captions else GAP
    needed = max((text_width(text, CAPTION) for text in texts), default=0.0) + 0.08
    cell = min(max(CELL, min(needed, MAX_COLUMN_WIDTH)), WIDTH / (columns * (1 + gap)))
    size = min(LABEL if not captions else CAPTION, CAPTION * cell / needed if texts else LABEL)
    size = max(size, 5.0)
    lines = [wrap(text, size, cell) for text in captions]
    caption = max((height(text, size) for text in lines), default=0.0)
    caption += 0.06 if caption else 0.0
    cell_height = cell * ratio
    column_step, row_step = cell * (1 + gap), cell_height + cell * gap + caption
    return Layout(columns, cell, cell_height, column_step, row_step, caption, size)


def draw_grid(grid: ImageGrid, note: str = "") -> Figure:
    """Draw rows of images at their aspect ratio, with column titles, row titles at the left, and
    captions below the images; `note` at the bottom states their source."""
    layout = compute_layout(grid)
    titles = wrap_titles(grid, layout)
    above = max((height(text, layout.size) + 0.06 for text in titles), default=0.0)
    left = EDGE + max((text_width(text, LABEL) + 0.12 for text in grid.row_titles), default=0.0)
    width = max(left + layout.width + EDGE, MIN_WIDTH)
    left += (width - left - layout.width - EDGE) / 2
    body = layout.height(len(grid.rows))
    figure, bottom = create_figure(width, above + body, grid.title, note)
    total = figure.get_figheight()
    axes = figure.add_axes((left / width, bottom / total, layout.width / width, body / total))
    fill_grid(axes, grid)
    return figure


def fill_grid(axes: Axes, grid: ImageGrid) -> None:
    """Draw a grid, except its title, in axes whose unit is inches."""
    layout = compute_layout(grid)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    convert = to_rgb if grid.colours == "grey" else _colour_heat_map
    for r, row in enumerate(map(convert, grid.rows)):
        top = r * layout.row_step
        for c, image in enumerate(row):
            x = c * layout.column_step
            extent = (x, x + layout.cell_width, top + layout.cell_height, top)
            axes.imshow(image, extent=extent, interpolation="nearest")
        if r < len(grid.row_titles):
            y = top + layout.cell_height / 2
            _draw_text(axes, -0.08, y, grid.row_titles[r], LABEL, "right", "center")
        for c, text in enumerate(grid.captions[r] if r < len(grid.captions) else ()):
            wrapped = wrap(text, layout.size, layout.cell_width)
            x, y = c * layout.column_step + layout.cell_width / 2, top + layout.cell_height + 0.03
            _draw_text(axes, x, y, wrapped, layout.size, "center", "top")
    titles = wrap_titles(grid, layout)
    level = not any("\n" in title for title in titles)  # one-line titles share a baseline
    y, va = (-0.08, "baseline") if level else (-0.05, "bottom")
    for c, title in enumerate(titles):
        x = c * layout.column_step + layout.cell_width / 2
        _draw_text(axes, x, y, title, layout.size, "center", va)
    axes.set(xlim=(0, layout.width), ylim=(layout.height(len(grid.rows)), 0), aspect="equal")


def wrap_titles(grid: ImageGrid, layout: Layout) -> list[str]:
    """The column titles, wrapped to the column width."""
    titles = grid.column_titles[: layout.columns]
    return [wrap(text, layout.size, layout.column_step) for text in titles]


def _colour_heat_map(row: Tensor) -> Array:
    """Convert a row to uint8 (n, H, W, 3); all its images share one scale."""
    x = to_numpy(row.float().nan_to_num().mean(1))  # (n, H, W)
    low, high = float(x.min()), float(x.max())
    scaled = (x - low) / (high - low) if high > low else np.zeros_like(x)
    colours: Array = colormaps[HEAT](scaled, bytes=True)[..., :3]
    return colours


def _draw_text(axes: Axes, x: float, y: float, text: str, size: float, ha: str, va: str) -> None:
    axes.text(x, y, escape_dollars(text), fontsize=size, ha=ha, va=va, color=INK, linespacing=1.1)
