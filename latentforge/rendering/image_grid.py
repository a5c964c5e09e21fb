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
    bare,
    escape_dollars,
    height,
    page,
    text_width,
    wrapped,
)
from latentforge.rendering.images import Array, to_numpy, to_rgb
from latentforge.rendering.palette import HEAT, INK

CELL = 0.95  # column width, inches; at 150 dpi a 28-pixel image is drawn at five times its size
WIDEST = 1.7  # maximum width of a column with long captions, inches
WIDTH = 11.5  # maximum width of all columns, inches
LEAST = 2.6  # minimum width of a figure, inches, so that a title has more than one word per line
GAP = 0.06  # gap between two cells, as a fraction of a cell
CAPTION = 7.5  # font size, points
DENSE = 12  # a grid with more columns and rows than this has no gaps


@dataclass(frozen=True)
class Layout:
    """Cell positions in inches: cells of `cell` x `tall`, repeated every `across` x `down`."""

    columns: int
    cell: float
    tall: float
    across: float
    down: float
    caption: float  # height of the captions below a row; 0 if there are none
    size: float  # font size of column titles and captions, points

    @property
    def width(self) -> float:
        return self.columns * self.across - (self.across - self.cell)

    def height(self, rows: int) -> float:
        return rows * self.down - (self.down - self.tall - self.caption)


def layout_of(grid: ImageGrid) -> Layout:
    """Compute the layout: cells of the usual width, wider for long captions, narrower if many."""
    columns = max(len(row) for row in grid.rows)
    ratio = max(row.shape[-2] / row.shape[-1] for row in grid.rows)
    captions = [text for row in grid.captions for text in row]
    texts = [*captions, *grid.column_titles]
    gap = 0.0 if columns > DENSE and len(grid.rows) > DENSE and not captions else GAP
    wanted = max((text_width(text, CAPTION) for text in texts), default=0.0) + 0.08
    cell = min(max(CELL, min(wanted, WIDEST)), WIDTH / (columns * (1 + gap)))
    size = min(LABEL if not captions else CAPTION, CAPTION * cell / wanted if texts else LABEL)
    size = max(size, 5.0)
    lines = [wrapped(text, size, cell) for text in captions]
    caption = max((height(text, size) for text in lines), default=0.0)
    caption += 0.06 if caption else 0.0
    tall = cell * ratio
    return Layout(columns, cell, tall, cell * (1 + gap), tall + cell * gap + caption, caption, size)


def draw_grid(grid: ImageGrid, note: str = "") -> Figure:
    """Draw rows of images at their aspect ratio, with column titles, row titles at the left, and
    captions below the images; `note` at the bottom states their source."""
    place = layout_of(grid)
    above = max((height(text, place.size) + 0.06 for text in titles_of(grid, place)), default=0.0)
    left = EDGE + max((text_width(text, LABEL) + 0.12 for text in grid.row_titles), default=0.0)
    width = max(left + place.width + EDGE, LEAST)
    left += (width - left - place.width - EDGE) / 2
    body = place.height(len(grid.rows))
    figure, bottom = page(width, above + body, grid.title, note)
    total = figure.get_figheight()
    axes = figure.add_axes((left / width, bottom / total, place.width / width, body / total))
    fill_grid(axes, grid)
    return figure


def fill_grid(axes: Axes, grid: ImageGrid) -> None:
    """Draw a grid, except its title, into axes with inches as the unit."""
    place = layout_of(grid)
    bare(axes)
    for r, row in enumerate(coloured(grid)):
        top = r * place.down
        for c, image in enumerate(row):
            x = c * place.across
            extent = (x, x + place.cell, top + place.tall, top)
            axes.imshow(image, extent=extent, interpolation="nearest")
        if r < len(grid.row_titles):
            _text(axes, (-0.08, top + place.tall / 2), grid.row_titles[r], LABEL, "right", "center")
        for c, text in enumerate(grid.captions[r] if r < len(grid.captions) else ()):
            words = wrapped(text, place.size, place.cell)
            under = (c * place.across + place.cell / 2, top + place.tall + 0.03)
            _text(axes, under, words, place.size, "center", "top")
    titles = titles_of(grid, place)
    level = not any("\n" in words for words in titles)  # share a baseline despite descenders
    for c, words in enumerate(titles):
        above = (c * place.across + place.cell / 2, -0.08 if level else -0.05)
        _text(axes, above, words, place.size, "center", "baseline" if level else "bottom")
    axes.set(xlim=(0, place.width), ylim=(place.height(len(grid.rows)), 0), aspect="equal")


def titles_of(grid: ImageGrid, place: Layout) -> list[str]:
    """The column titles, wrapped to the column width."""
    titles = grid.column_titles[: place.columns]
    return [wrapped(text, place.size, place.across) for text in titles]


def coloured(grid: ImageGrid) -> list[Array]:
    """The rows as uint8 (n, H, W, 3). In heat maps, all images of a row share one scale."""
    if grid.colours == "grey":
        return [to_rgb(row) for row in grid.rows]
    return [_heat(row) for row in grid.rows]


def _heat(row: Tensor) -> Array:
    x = to_numpy(row.float().nan_to_num().mean(1))  # (n, H, W)
    low, high = float(x.min()), float(x.max())
    scaled = (x - low) / (high - low) if high > low else np.zeros_like(x)
    colours: Array = colormaps[HEAT](scaled, bytes=True)[..., :3]
    return colours


def _text(
    axes: Axes, at: tuple[float, float], text: str, size: float, across: str, down: str
) -> None:
    axes.text(
        *at, escape_dollars(text), fontsize=size, ha=across, va=down, color=INK, linespacing=1.1
    )
