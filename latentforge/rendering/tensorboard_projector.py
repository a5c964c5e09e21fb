"""Writes codes for TensorBoard's projector: numbers and class names as text, images as one sheet.

The projector rejects a sheet with a side above 8192 pixels, and a browser cannot load too many
numbers. If the limits are exceeded, an evenly spaced subset of the points is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentforge.findings import Finding, Findings, Scatter
from latentforge.io.paths import as_cell
from latentforge.rendering.images import tile, to_cells, to_numpy

SIDE = 8192  # pixels
NUMBERS = 5_000_000  # maximum number of values in the codes of a map: 50 MB of text
DIMS = 3  # the projector shows nothing of codes with fewer dimensions
CONFIG = "projector_config.pbtxt"
FOLDER = "projector"


def write_projector(findings: Findings, folder: Path) -> None:
    """Write the projector's files for each map that has codes, or nothing if no map has codes."""
    maps = [item for item in findings.items if isinstance(item, Scatter) and item.codes is not None]
    config = "".join(_write_embedding(item, folder) for item in maps)
    if config:
        (folder / CONFIG).write_text(config, "utf-8")


def projector_notes(items: Sequence[Finding]) -> list[str]:
    """Return a note for each map that the projector shows only in part."""
    return [
        f"TensorBoard's projector shows {len(selected):,} of the {len(item.points):,} codes of "
        f"{item.name!r}, evenly spaced: the limits are images of {SIDE} x {SIDE} pixels and "
        f"{NUMBERS:,} numbers"
        for item in items
        if isinstance(item, Scatter) and item.codes is not None
        if len(selected := select_points(item)) < len(item.points)
    ]


def select_points(item: Scatter) -> Tensor:
    """The indices of the points for the projector: all, or an evenly spaced subset that fits."""
    assert item.codes is not None
    count = len(item.codes)
    limit = max(1, NUMBERS // max(1, item.codes[0].numel()))
    if item.images is not None:
        height, width = item.images.shape[-2:]
        limit = min(limit, max(1, SIDE // max(height, width)) ** 2)
    return torch.linspace(0, count - 1, min(count, limit), dtype=torch.float64).round().long()


def _write_embedding(item: Scatter, folder: Path) -> str:
    """Write the files of one map. Returns its part of the configuration in protobuf text format."""
    assert item.codes is not None
    item_folder = folder / FOLDER / item.name
    item_folder.mkdir(parents=True)
    relative_path = f"{FOLDER}/{item.name}"
    selected = select_points(item)
    codes = to_numpy(item.codes.detach().cpu().flatten(1)[selected].float())
    if codes.shape[1] < DIMS:
        codes = np.pad(codes, ((0, 0), (0, DIMS - codes.shape[1])))
    np.savetxt(item_folder / "tensors.tsv", codes, fmt="%.6g", delimiter="\t")
    lines = [("tensor_name", item.name), ("tensor_path", f"{relative_path}/tensors.tsv")]
    if columns := _list_columns(item, selected):
        titles = [tuple(columns)] if len(columns) > 1 else []  # a single column must have none
        rows = [*titles, *zip(*columns.values(), strict=True)]
        table = "".join("\t".join(row) + "\n" for row in rows)
        (item_folder / "metadata.tsv").write_text(table, "utf-8")
        lines.append(("metadata_path", f"{relative_path}/metadata.tsv"))
    text = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in lines)
    if item.images is not None:
        images = item.images.detach().cpu()[selected]
        create_sprite_sheet(images).save(item_folder / "sprite.png")
        height, width = images.shape[-2:]
        text += f'  sprite {{\n    image_path: "{relative_path}/sprite.png"\n'
        text += f"    single_image_dim: {width}\n    single_image_dim: {height}\n  }}\n"
    return f"embeddings {{\n{text}}}\n"


def _list_columns(item: Scatter, selected: Tensor) -> dict[str, list[str]]:
    """The texts of the points by the title of the column: names of classes, and values."""
    columns = {}
    if item.labels is not None:
        names = {i: _as_line(name) for i, name in enumerate(item.classes)}
        labels = item.labels.cpu()[selected].tolist()
        columns["class"] = [names.get(i, str(i)) for i in labels]
    if item.values is not None:
        title = _as_line(item.values_title) or "value"
        columns[title] = [f"{value:.6g}" for value in item.values.cpu()[selected].tolist()]
    return columns


def _as_line(text: str) -> str:
    return str(as_cell(" ".join(text.split())))


def create_sprite_sheet(images: Tensor) -> Image.Image:
    """Tile images (n, C, H, W) row by row into a sheet with as many rows as columns."""
    cells = to_cells(images)
    columns = math.ceil(math.sqrt(len(cells)))
    return Image.fromarray(tile(cells, columns, columns))
