"""A film on paper: the images of chosen frames in rows, or whole frames where there are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentforge.findings import Film, ImageGrid
from latentforge.rendering.animation import evenly_spaced
from latentforge.rendering.html.sprites import png
from latentforge.rendering.images import Array

FRAMES = 10  # across
ROWS = 12  # images of a frame at the most; else whole frames
PAGES = 6  # whole frames, two a row


def strip(film: Film) -> ImageGrid | None:
    """A grid with a row for each image of a frame, from left to right its frames; None where the
    frames show no image, or too many."""
    chosen = evenly_spaced(len(film.frames), FRAMES)
    shots = [[panel for panel in film.frames[i] if isinstance(panel, ImageGrid)] for i in chosen]
    pictures = [[image for grid in grids for image in _images(grid)] for grids in shots]
    rows = len(pictures[0])
    if not 1 <= rows <= ROWS or any(len(images) != rows for images in pictures):
        return None
    shapes = [{tuple(images[r].shape) for images in pictures} for r in range(rows)]
    if any(len(of_row) > 1 for of_row in shapes):
        return None
    texts = [[text for grid in grids for text in _captions(grid)] for grids in shots]
    return ImageGrid(
        name=film.name,
        title=film.title,
        rows=[torch.stack([images[r].detach().cpu() for images in pictures]) for r in range(rows)],
        column_titles=[film.frame_titles[i] for i in chosen if i < len(film.frame_titles)],
        row_titles=[name for grid in shots[0] for name in _names(grid)] if rows > 1 else (),
        captions=list(zip(*texts, strict=True)) if any(map(any, texts)) else (),
        colours=shots[0][0].colours,
    )


def _images(grid: ImageGrid) -> list[Tensor]:
    return [image for row in grid.rows for image in row]


def _names(grid: ImageGrid) -> list[str]:
    """What the titles of its row and column call each image of a grid."""
    return [
        " ".join(text for text in (_at(grid.row_titles, r), _at(grid.column_titles, c)) if text)
        for r, row in enumerate(grid.rows)
        for c in range(len(row))
    ]


def _captions(grid: ImageGrid) -> list[str]:
    return [
        _at(grid.captions[r], c) if r < len(grid.captions) else ""
        for r, row in enumerate(grid.rows)
        for c in range(len(row))
    ]


def _at(texts: Sequence[str], i: int) -> str:
    return texts[i] if i < len(texts) else ""


def sheet(frames: Sequence[Array]) -> bytes:
    """A PNG of chosen whole frames, two a row."""
    chosen = [frames[i] for i in evenly_spaced(len(frames), PAGES)]
    if len(chosen) > 1 and len(chosen) % 2:
        chosen.append(np.full_like(chosen[0], 255))
    pairs = [np.concatenate(chosen[i : i + 2], axis=1) for i in range(0, len(chosen), 2)]
    return png(Image.fromarray(np.concatenate(pairs)))
