"""Picture files as <img> with a data URI, made smaller where that costs nothing one could see."""

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
DRAWN = 1.6  # our PNG have 150 dpi, a page 96
LARGE = 1_500_000  # bytes of a picture; beyond, it is shrunk to half its side
COLUMN = 560  # pixels of a column where two folders are side by side


@dataclass(frozen=True)
class Picture:
    """`wide`: in a column it would become a thin strip whose words nobody can read."""

    kind: str
    tag: Markup
    wide: bool = False


def embed(file: Path, title: str) -> Picture | None:
    """A picture's tag, or None for a file that is none. An SVG in <img> runs no script."""
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        return None
    content = read_bytes(file)
    size: tuple[int, int] | None = None
    if kind != "image/svg+xml":
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            if kind == "image/png":
                size = (round(size[0] / DRAWN), round(size[1] / DRAWN))
                content = smaller(image, content)
    tag = Markup('<img class="picture" alt="{}" src="{}"{}>')
    # attributes that keep the place free; `--w` is the width where there is room
    place = Markup(' width="{0}" height="{1}" style="--w: {0}px"').format(*size) if size else ""
    wide = size is not None and size[0] > max(COLUMN, 2 * size[1])
    return Picture(kind, tag.format(title, data_uri(content, kind), place), wide)


def smaller(image: Image.Image, content: bytes) -> bytes:
    """The same pixels in fewer bytes; only a very large picture loses some."""
    flat = image.convert("RGBA")
    ground = Image.new("RGBA", flat.size, "white")
    flat = Image.alpha_composite(ground, flat).convert("RGB")
    grey = flat.convert("L")
    if grey.convert("RGB").tobytes() == flat.tobytes():
        best = png(grey)
    else:
        few = flat.quantize(256, dither=Image.Dither.NONE)
        best = png(few if few.convert("RGB").tobytes() == flat.tobytes() else flat)
    if min(len(best), len(content)) > LARGE:
        half = flat.resize((flat.width // 2, flat.height // 2), Image.Resampling.LANCZOS)
        best = png(half.quantize(256))
    return min(best, content, key=len)
