"""matplotlib figures in a common style: title above, source note below, sizes in inches.

pyplot is not used, so there is no global state, window or backend selection.
"""

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
EDGE = 0.15  # margin around a figure, inches
TITLE, LABEL, NOTE = 12.0, 9.0, 7.0  # font sizes, points
LEGEND: dict[str, Any] = {  # to the right of the axes
    "loc": "upper left",
    "bbox_to_anchor": (1.01, 1.0),
    "borderaxespad": 0.0,
    "frameon": False,
    "fontsize": LABEL - 1,
    "labelcolor": INK,
}
LINE = 1.35 / 72  # line height in inches per point of font size
HINTING_FACTOR = 1.04  # letters at whole pixels are wider than their outlines


def text_width(text: str, size: float) -> float:
    """The width in inches of the widest line of a text at `size` points."""
    ems = max((sum(map(_advance, line)) for line in text.split("\n")), default=0.0)
    return HINTING_FACTOR * ems * size / 72


@lru_cache(maxsize=1024)
def _advance(letter: str) -> float:
    """The width of a letter of the default font, at size 1."""
    font = get_font(findfont(FontProperties()))
    if not font.get_char_index(ord(letter)):
        return 1.0  # drawn as a box or in another font
    font.set_size(100, 72)
    return font.load_char(ord(letter), LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / 100


def escape_dollars(text: str) -> str:
    """Escape dollar signs, which matplotlib would parse as mathematics; a tab becomes a space."""
    return text.replace("$", r"\$").replace("\t", " ")


def height(text: str, size: float) -> float:
    """The height in inches of a text of one or more lines; 0 for an empty text."""
    return (text.count("\n") + 1) * size * LINE if text else 0.0


def wrap(text: str, size: float, width: float) -> str:
    """Wrap a text to lines of at most `width` inches, at spaces or inside a word that is longer."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            candidate = f"{line} {word}" if line else word
            if text_width(candidate, size) <= width:
                line = candidate
                continue
            lines += [line] if line else []
            *full_lines, line = split_word(word, size, width)
            lines += full_lines
        lines.append(line)
    return "\n".join(lines)


def split_word(word: str, size: float, width: float) -> list[str]:
    """Split a word, such as a path, into pieces of at most `width` inches."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def create_figure(width: float, body: float, title: str, note: str) -> tuple[Figure, float]:
    """Create a figure with a title and a note around a body of `width` x `body` inches. Also
    returns the bottom of the body in inches. Long text is wrapped and makes the figure taller."""
    available = width - 2 * EDGE
    title, note = wrap(title, TITLE, available), wrap(note, NOTE, available)
    bottom = (height(note, NOTE) + 0.16) if note else EDGE
    top = (height(title, TITLE) + 0.24) if title else EDGE
    total = bottom + body + top
    figure = Figure(figsize=(width, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for text, x, y, ha, va, size, ink in (
        (title, 0.5, 1 - 0.12 / total, "center", "top", TITLE, INK),
        (note, 1 - EDGE / width, 0.08 / total, "right", "bottom", NOTE, "0.4"),
    ):
        figure.text(x, y, escape_dollars(text), ha=ha, va=va, fontsize=size, color=ink)
    return figure, bottom


def create_chart_figure(width: float, body: float, title: str, note: str) -> Figure:
    """Create a figure whose body matplotlib lays out, with space for labels and legends."""
    figure, bottom = create_figure(width, body, title, note)
    total = figure.get_figheight()
    rect = (EDGE / width, bottom / total, 1 - 2 * EDGE / width, body / total)
    figure.set_layout_engine("constrained", rect=rect)
    return figure


def apply_style(axes: Axes) -> None:
    """Apply the style of all axes: thin faint lines, and no lines at the top and right."""
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=FAINT, linewidth=0.8)
    axes.tick_params(labelsize=LABEL - 1, color=FAINT, labelcolor=INK, length=3)
    axes.xaxis.label.set_fontsize(LABEL)
    axes.yaxis.label.set_fontsize(LABEL)
