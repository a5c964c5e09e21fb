"""Colours and markers of classes, the same in every picture, film and page. Standard library."""

from __future__ import annotations

COLOURS = (
    *("#188aff", "#d0ba19", "#de0004", "#027b5d", "#ff7e9f"),
    *("#7800b6", "#a2b7ff", "#7f0d00", "#2a4564", "#b954b5"),
)
"""Ten colours to be told apart on white by everyone: found by maximising the smallest distance in
Oklab of any two, as seen and under simulated protanopia, deuteranopia and tritanopia (Machado,
Oliveira and Fernandes 2009). After ten the colours start again with another marker."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")

INK = "#1a1a1a"
FAINT = "#8c8c8c"
HEAT = "viridis"


def colour(i: int) -> str:
    """The colour of class `i`."""
    return COLOURS[i % len(COLOURS)]


def marker(i: int, few: bool = False) -> str:
    """The marker of class `i`: its own where there are `few` points, which are drawn large; else
    the same for the first ten classes, another for the next ten."""
    return MARKERS[((i if few else 0) + i // len(COLOURS)) % len(MARKERS)]
