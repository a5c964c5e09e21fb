"""Draws selected frames of an animation on one still image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentforge.findings import Film, ImageGrid
from latentforge.rendering.animation import evenly_spaced
from latentforge.rendering.html.sprites import png
from latentforge.rendering.images import Array

FRAMES = 10  # number of selected frames, one per column
ROWS = 12  # maximum images per frame; with more, whole frames are shown
PAGES = 6  # number of whole frames on a sheet, two per row


def create_strip(film: Film) -> ImageGrid | None:
    """Create a grid with a row for each image of a frame and a column for each selected frame.
    Returns None if the frames contain no images, more than ROWS, or images whose number or shape
    changes between frames."""
    selected = evenly_spaced(len(film.frames), FRAMES)
    grids = [[panel for panel in film.frames[i] if isinstance(panel, ImageGrid)] for i in selected]
    columns = [[cell for grid in panels for cell in _list_cells(grid)] for panels in grids]
    count = len(columns[0])
    if not 1 <= count <= ROWS or any(len(cells) != count for cells in columns):
        return None
    rows = list(zip(*columns, strict=True))
    if any(len({tuple(image.shape) for image, *_ in row}) > 1 for row in rows):
        return None
    captions = [[caption for *_, caption in row] for row in rows]
    return ImageGrid(
        name=film.name,
        title=film.title,
        rows=[torch.stack([image.detach().cpu() for image, *_ in row]) for row in rows],
        column_titles=[film.frame_titles[i] for i in selected if i < len(film.frame_titles)],
        row_titles=[name for _, name, _ in columns[0]] if count > 1 else (),
        captions=captions if any(map(any, captions)) else (),
        colours=grids[0][0].colours,
    )


def _list_cells(grid: ImageGrid) -> Iterator[tuple[Tensor, str, str]]:
    """Yield each image of a grid, its name from the row and column titles, and its caption."""
    for r, row in enumerate(grid.rows):
        captions = grid.captions[r] if r < len(grid.captions) else ()
        for c, image in enumerate(row):
            titles = _get_text(grid.row_titles, r), _get_text(grid.column_titles, c)
            yield image, " ".join(filter(None, titles)), _get_text(captions, c)


def _get_text(texts: Sequence[str], i: int) -> str:
    return texts[i] if i < len(texts) else ""


def create_sheet(frames: Sequence[Array]) -> bytes:
    """A PNG of selected whole frames, two per row."""
    selected = [frames[i] for i in evenly_spaced(len(frames), PAGES)]
    if len(selected) > 1 and len(selected) % 2:
        selected.append(np.full_like(selected[0], 255))
    pairs = [np.concatenate(selected[i : i + 2], axis=1) for i in range(0, len(selected), 2)]
    return png(Image.fromarray(np.concatenate(pairs)))
