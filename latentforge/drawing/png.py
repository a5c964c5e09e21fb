"""Pictures by matplotlib, without pyplot: no global state, no window, no backend to choose."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latentforge.findings import ImageGrid

CELL = 0.95  # inches a column; at 150 dpi a 28-pixel image is drawn five times its size
DPI = 150


def draw_grid(grid: ImageGrid, note: str = "") -> Figure:
    """Rows of images at their aspect, titled by column and, at the left, by row; `note` at the foot
    says where they come from."""
    columns = max(len(row) for row in grid.rows)
    _, height, width = grid.rows[0].shape[1:]
    left = 0.25 + 0.085 * max((len(t) for t in grid.row_titles), default=0)
    cell_height = CELL * height / width
    top = 0.45 + (0.25 if grid.column_titles else 0.0)
    bottom = 0.3 if note else 0.15
    size = (left + columns * CELL + 0.15, top + len(grid.rows) * cell_height + bottom)
    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(grid.rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=left / size[0],
        right=1 - 0.15 / size[0],
        top=1 - top / size[1],
        bottom=bottom / size[1],
        wspace=0.06,
        hspace=0.06,
    )
    figure.text(1 - 0.15 / size[0], 0.08 / size[1], note, ha="right", fontsize=7, color="0.45")
    figure.text(0.5, 1 - 0.12 / size[1], grid.title, ha="center", va="top", fontsize=12)
    for r, row in enumerate(grid.rows):
        images = row.detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()  # (n, H, W, C)
        for c in range(columns):
            cell = axes[r, c]
            _bare(cell)
            if c < len(images):
                cell.imshow(_squeeze_grey(images[c]), cmap="gray", vmin=0, vmax=1)
            if r == 0 and c < len(grid.column_titles):
                cell.set_title(grid.column_titles[c], fontsize=9, pad=4)
        if r < len(grid.row_titles):
            axes[r, 0].set_ylabel(
                grid.row_titles[r], rotation=0, ha="right", va="center", fontsize=9, labelpad=6
            )
    return figure


def _bare(cell: Axes) -> None:
    cell.set_xticks([])
    cell.set_yticks([])
    for spine in cell.spines.values():
        spine.set_visible(False)


def _squeeze_grey(image: Any) -> Any:
    return image[..., 0] if image.shape[-1] == 1 else image
