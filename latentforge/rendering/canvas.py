"""A figure of one look: title above, origin below, sizes in inches. matplotlib without pyplot: no
global state, no window, no backend to choose."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags

from latentforge.rendering.palette import FAINT, INK

DPI = 150
EDGE = 0.15  # inches that stay empty around a picture
TITLE, LABEL, NOTE = 12.0, 9.0, 7.0  # points
LEGEND: dict[str, Any] = {  # at the right of the axes
    "loc": "upper left",
    "bbox_to_anchor": (1.01, 1.0),
    "borderaxespad": 0.0,
    "frameon": False,
    "fontsize": LABEL - 1,
    "labelcolor": INK,
}
LINE = 1.35 / 72  # inches of a line of text for each point of its size

HINTED = 1.04  # letters set in whole pixels take more room than their outlines


def text_width(text: str, size: float) -> float:
    """The width in inches of the widest line of a text at `size` points."""
    ems = max((sum(map(_advance, line)) for line in text.split("\n")), default=0.0)
    return HINTED * ems * size / 72


@lru_cache(maxsize=1024)
def _advance(letter: str) -> float:
    """The width of a letter of the default font, of size 1."""
    font = get_font(findfont(FontProperties()))
    if not font.get_char_index(ord(letter)):
        return 1.0  # a box, or a letter of another font
    font.set_size(100, 72)
    return font.load_char(ord(letter), LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / 100


def escape_dollars(text: str) -> str:
    """The text with its dollar signs as such, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$").replace("\t", " ")


def height(text: str, size: float) -> float:
    """The height in inches of a text of one or more lines; 0 for none."""
    return (text.count("\n") + 1) * size * LINE if text else 0.0


def wrapped(text: str, size: float, width: float) -> str:
    """The text in lines of at most `width` inches, broken at spaces, and inside what has none."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if text_width(longer, size) <= width:
                line = longer
                continue
            lines += [line] if line else []
            *whole, line = broken(word, size, width)
            lines += whole
        lines.append(line)
    return "\n".join(lines)


def broken(word: str, size: float, width: float) -> list[str]:
    """A word, such as a path, in pieces of at most `width` inches."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def page(width: float, body: float, title: str, note: str) -> tuple[Figure, float]:
    """A figure with a title and a note around a body of so many inches, and the bottom of the body
    in inches. Text too wide is wrapped, and makes the figure higher."""
    room = width - 2 * EDGE
    title, note = wrapped(title, TITLE, room), wrapped(note, NOTE, room)
    bottom = (height(note, NOTE) + 0.16) if note else EDGE
    top = (height(title, TITLE) + 0.24) if title else EDGE
    total = bottom + body + top
    figure = Figure(figsize=(width, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for text, x, y, across, down, size, ink in (
        (title, 0.5, 1 - 0.12 / total, "center", "top", TITLE, INK),
        (note, 1 - EDGE / width, 0.08 / total, "right", "bottom", NOTE, "0.4"),
    ):
        figure.text(x, y, escape_dollars(text), ha=across, va=down, fontsize=size, color=ink)
    return figure, bottom


def charts(width: float, body: float, title: str, note: str) -> Figure:
    """A page whose body is laid out by matplotlib, which leaves room for labels and legends."""
    figure, bottom = page(width, body, title, note)
    total = figure.get_figheight()
    rect = (EDGE / width, bottom / total, 1 - 2 * EDGE / width, body / total)
    figure.set_layout_engine("constrained", rect=rect)
    return figure


def tidy(axes: Axes) -> None:
    """The look of all axes: thin faint lines, and none at the top and at the right."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    axes.tick_params(labelsize=LABEL - 1, color=FAINT, labelcolor=INK, length=3)
    axes.xaxis.label.set_fontsize(LABEL)
    axes.yaxis.label.set_fontsize(LABEL)


def bare(axes: Axes) -> None:
    """Axes without ticks and lines."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
