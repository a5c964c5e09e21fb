"""Embeds image files as <img> with a data URI, recompressed without visible loss."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from latentforge.io.atomic import read_bytes
from latentforge.rendering.html.sprites import data_uri, png

KINDS = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
DPI_RATIO = 1.6  # LatentForge's PNGs have 150 dpi, a page 96
MAX_BYTES = 1_500_000  # bytes; a larger image is scaled to half its width and height
COLUMN = 560  # width of a column if two folders are side by side, pixels


@dataclass(frozen=True)
class Picture:
    """An embedded image. `wide` is set if it would be too small to read in a column."""

    kind: str
    tag: Markup
    wide: bool = False


def embed(file: Path, title: str) -> Picture | None:
    """Embed an image file in an <img> tag; None for other files. An SVG in <img> runs no
    scripts."""
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        return None
    content = read_bytes(file)
    attributes, wide = "", False
    if kind != "image/svg+xml":
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if kind == "image/png":
                width, height = round(width / DPI_RATIO), round(height / DPI_RATIO)
                content = compress(image, content)
        # width and height reserve the space before loading; `--w` is the width if the page is wide
        attributes = Markup(' width="{0}" height="{1}" style="--w: {0}px"').format(width, height)
        wide = width > max(COLUMN, 2 * height)
    tag = Markup('<img class="picture" alt="{}" src="{}"{}>')
    return Picture(kind, tag.format(title, data_uri(content, kind), attributes), wide)


def compress(image: Image.Image, content: bytes) -> bytes:
    """Draw an image on white and compress it without loss. An image above MAX_BYTES is scaled down
    and quantized."""
    flat = image.convert("RGBA")
    background = Image.new("RGBA", flat.size, "white")
    flat = Image.alpha_composite(background, flat).convert("RGB")
    grey = flat.convert("L")
    if grey.convert("RGB").tobytes() == flat.tobytes():
        best = png(grey)
    else:
        quantized = flat.quantize(256, dither=Image.Dither.NONE)
        best = png(quantized if quantized.convert("RGB").tobytes() == flat.tobytes() else flat)
    if min(len(best), len(content)) > MAX_BYTES:
        half = flat.resize((flat.width // 2, flat.height // 2), Image.Resampling.LANCZOS)
        best = png(half.quantize(256))
    return min(best, content, key=len)
