"""Packs many images into one PNG in a data URI: thumbnails of points, decoded images of a plane."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from latentforge.rendering.images import tile, to_cells

SIDE = 8192  # pixels; browsers reject larger images
PIXELS = 4_200_000  # maximum pixels of a sprite: 5,000 images of 28 x 28
THUMBNAIL = 64  # maximum length of an image's longer side, pixels


def sprite(images: Tensor, columns: int) -> dict[str, Any]:
    """Pack `images` (N, C, H, W) in [0, 1] row by row into one image. Returns its data URI, the
    cell size and the number of columns.

    Images are scaled down if they are too large; otherwise their pixels are unchanged.
    """
    cells = to_cells(images)
    height, width = cells.shape[1:3]
    rows = -(-len(cells) // columns)
    scale = min(
        1.0,
        THUMBNAIL / max(height, width),
        (PIXELS / (len(cells) * height * width)) ** 0.5,
        SIDE / (columns * width),
        SIDE / (rows * height),
    )
    if scale < 1:
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        cells = np.stack([np.asarray(Image.fromarray(cell).resize(size)) for cell in cells])
        height, width = cells.shape[1:3]
    source = data_uri(png(Image.fromarray(tile(cells, rows, columns))), "image/png")
    return {"src": source, "width": width, "height": height, "columns": columns}


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
