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
from latentforge.rendering.images import tiled, to_cells, to_numpy

SIDE = 8192  # pixels
NUMBERS = 5_000_000  # maximum for all codes of a map: 50 MB of text
CONFIG = "projector_config.pbtxt"
FOLDER = "projector"


def write_projector(findings: Findings, folder: Path) -> None:
    """Write the projector's files for each map that has codes; nothing if no map has any."""
    found = [
        item for item in findings.items if isinstance(item, Scatter) and item.codes is not None
    ]
    config = "".join(_embedding(item, folder) for item in found)
    if config:
        (folder / CONFIG).write_text(config, "utf-8")


def projector_notes(items: Sequence[Finding]) -> list[str]:
    """A note for each map of which the projector shows only a subset of the points."""
    return [
        f"TensorBoard's projector shows {len(chosen):,} of the {len(item.points):,} codes of "
        f"{item.name!r}, evenly spaced: the limits are images of {SIDE} x {SIDE} pixels and "
        f"{NUMBERS:,} numbers"
        for item in items
        if isinstance(item, Scatter) and item.codes is not None
        if len(chosen := projected(item)) < len(item.points)
    ]


def projected(item: Scatter) -> Tensor:
    """The indices of the points for the projector: all, or an evenly spaced subset that fits."""
    assert item.codes is not None
    count = len(item.codes)
    most = max(1, NUMBERS // max(1, item.codes[0].numel()))
    if item.images is not None:
        height, width = item.images.shape[-2:]
        most = min(most, max(1, SIDE // max(height, width)) ** 2)
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()


def _embedding(item: Scatter, folder: Path) -> str:
    """Write the files of one map. Returns its part of the configuration in protobuf text format."""
    assert item.codes is not None
    own = folder / FOLDER / item.name
    own.mkdir(parents=True)
    place = f"{FOLDER}/{item.name}"
    chosen = projected(item)
    codes = to_numpy(item.codes.detach().cpu().flatten(1)[chosen].float())
    np.savetxt(own / "tensors.tsv", codes, fmt="%.6g", delimiter="\t")
    lines = [("tensor_name", item.name), ("tensor_path", f"{place}/tensors.tsv")]
    if item.labels is not None:
        named = {i: " ".join(name.split()) for i, name in enumerate(item.classes)}  # on one line
        names = [named.get(int(i), str(int(i))) for i in item.labels.cpu()[chosen]]
        (own / "metadata.tsv").write_text("".join(f"{name}\n" for name in names), "utf-8")
        lines.append(("metadata_path", f"{place}/metadata.tsv"))
    text = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in lines)
    if item.images is not None:
        images = item.images.detach().cpu()[chosen]
        sprite_sheet(images).save(own / "sprite.png")
        height, width = images.shape[-2:]
        text += f'  sprite {{\n    image_path: "{place}/sprite.png"\n'
        text += f"    single_image_dim: {width}\n    single_image_dim: {height}\n  }}\n"
    return f"embeddings {{\n{text}}}\n"


def sprite_sheet(images: Tensor) -> Image.Image:
    """Images (n, C, H, W) row by row on a sheet with as many rows as columns."""
    cells = to_cells(images)
    across = math.ceil(math.sqrt(len(cells)))
    return Image.fromarray(tiled(cells, across, across))
