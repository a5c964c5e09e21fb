"""Colours, markers and short names of classes, the same in all images, animations and pages.
Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

COLOURS = (
    *("#188aff", "#d0ba19", "#de0004", "#027b5d", "#ff7e9f"),
    *("#7800b6", "#a2b7ff", "#7f0d00", "#2a4564", "#b954b5"),
)
"""Ten colours that are distinguishable on white, also with colour blindness. They maximise the
smallest distance of any two in Oklab, for normal vision and simulated protanopia, deuteranopia and
tritanopia (Machado, Oliveira and Fernandes 2009). After ten classes the colours repeat, with
another marker."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")

INK = "#1a1a1a"
FAINT = "#8c8c8c"
HEAT = "viridis"

SCALE = (
    *("#414487", "#365c8d", "#2c728e", "#24878e", "#1e9c89"),
    *("#2cb17e", "#50c46a", "#84d44b", "#bddf26"),
)
"""The colours of numbers from low to high, evenly spaced: viridis from 0.2 to 0.9, because its ends
are hard to see on black and on white. The lightness increases steadily, so that the order is also
visible with colour blindness."""


def colour(i: int) -> str:
    """The colour of class `i`."""
    return COLOURS[i % len(COLOURS)]


def marker(i: int, few: bool = False) -> str:
    """The marker of class `i`. With `few` points, which are drawn large, each of ten classes has a
    different marker; otherwise the first ten classes share one marker, and the next ten share
    another."""
    return MARKERS[((i if few else 0) + i // len(COLOURS)) % len(MARKERS)]


def path_colours(paths: Iterable[str], classes: Sequence[str]) -> list[str]:
    """The colour of each path by its name: of the class with this name, or else of its position."""
    return [colour(classes.index(p) if p in classes else i) for i, p in enumerate(paths)]


def scale_limits(values: Iterable[float]) -> tuple[float, float]:
    """The numbers at the two ends of SCALE: the lowest and the highest value, apart if equal."""
    values = [*values]
    low, high = min(values), max(values)
    margin = 0.0 if low < high else abs(low) / 2 or 0.5
    return low - margin, high + margin


def shorten_name(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
