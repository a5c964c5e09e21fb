"""Adds the paths of a map to a plotly figure: outlined lines from a ring to a star.

`assets/charts.js` animates the paths and sets the colours that a trace's `meta` maps to CSS
variables of the page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from latentforge.findings import FRAMES, Scatter
from latentforge.rendering.images import Array
from latentforge.rendering.palette import path_colours, shorten_name

INK, BACKGROUND = "--fg", "--bg"  # CSS variables of the page: text and background colour
TEXT_POSITIONS = (
    *("middle right", "top right", "top center", "top left"),
    *("middle left", "bottom left", "bottom center", "bottom right"),
)


def to_array(values: Any) -> Array:
    """Convert a tensor on any device, or an array, to a NumPy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def round_values(values: Any) -> list[float | None]:
    """Round values to five significant digits, more than a screen shows. Values that are not finite
    become None, which is drawn as a gap."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in to_array(values).tolist()]


def escape_text(value: object) -> str:
    """Escape text, because plotly parses markup; a class named `<b>` is then shown literally."""
    return html.escape(str(value), quote=False)


def count_frames(item: Scatter) -> int:
    """The number of animation frames; all paths are drawn point by point at the same time. 0 if no
    path has two or more points."""
    longest = max(map(len, item.paths.values()), default=0)
    return min(FRAMES, longest) if longest > 1 else 0


def add_paths(figure: go.Figure, item: Scatter) -> None:
    """Draw a single path in the text colour, or several paths in the colours of the PNG, with their
    names at their ends. Lines come first, so that they do not cover a ring or a star."""
    coloured = zip(item.paths.items(), path_colours(item.paths, item.classes), strict=True)
    paths = [(name, to_array(path), fill) for (name, path), fill in coloured if len(path)]
    if not paths:
        return
    several = len(paths) > 1
    fills = [fill for *_, fill in paths] if several else []
    lines = [_add_line(figure, path, name, fill if several else "") for name, path, fill in paths]
    _add_starts(figure, np.stack([path[0] for _, path, _ in paths]), fills)
    ends = np.stack([path[-1] for _, path, _ in paths])
    star = {"symbol": "star", "size": 16, "line": {"width": 1.2}}
    ink_styles = {"marker.line.color": INK}
    style: dict[str, Any] = {"meta": {"colours": ink_styles, "ends": lines}}
    if several:
        star["color"] = fills
        ink_styles["textfont.color"] = INK
        style |= {"mode": "markers+text", "textfont": {"size": 14, "weight": 700}}
        style["text"] = [escape_text(shorten_name(name)) for name, *_ in paths]
        style["textposition"] = choose_text_positions(ends)
    else:
        ink_styles["marker.color"] = BACKGROUND
    _add_markers(figure, ends, "ends", marker=star, **style)
    _add_legend(figure)


def _add_line(figure: go.Figure, path: Array, name: str, fill: str) -> int:
    """Add an outline and a line above it, and return the index of the line's trace. Without `fill`
    the path is the only one and gets a legend entry, which can hide it."""
    x, y = round_values(path[:, 0]), round_values(path[:, 1])
    style: dict[str, Any] = {"x": x, "y": y, "mode": "lines"}
    style["legendgroup"] = "ends" if fill else "path"
    outline = {"colours": {"line.color": INK if fill else BACKGROUND}, "grows": True}
    figure.add_scatter(**style, line={"width": 3.8}, meta=outline, showlegend=False)
    line = {"colours": {} if fill else {"line.color": INK}, "grows": True}
    stroke = {"width": 2.2, **({"color": fill} if fill else {})}
    figure.add_scatter(**style, name=escape_text(name), line=stroke, meta=line, showlegend=not fill)
    return len(figure.data) - 1


def _add_starts(figure: go.Figure, positions: Array, fills: list[str]) -> None:
    """Draw open rings at the starts; coloured rings have an outline."""
    ring: dict[str, Any] = {"symbol": "circle", "size": 10, "line": {"width": 2.2}}
    colours = {"marker.color": BACKGROUND}
    if fills:
        ring["line"]["color"] = fills
        outline, meta = {"symbol": "circle", "size": 14}, {"colours": {"marker.color": INK}}
        _add_markers(figure, positions, "starts", marker=outline, meta=meta)
    else:
        colours["marker.line.color"] = INK
    _add_markers(figure, positions, "starts", marker=ring, meta={"colours": colours})


def _add_markers(figure: go.Figure, positions: Array, group: str, **style: Any) -> None:
    x, y = round_values(positions[:, 0]), round_values(positions[:, 1])
    style = {"mode": "markers", **style}
    figure.add_scatter(x=x, y=y, legendgroup=group, showlegend=False, **style)


def _add_legend(figure: go.Figure) -> None:
    """Add legend entries for the ring and the star, as traces without points."""
    style: dict[str, Any] = {"x": [None], "y": [None], "mode": "markers", "showlegend": True}
    style["meta"] = {"colours": {"marker.color": BACKGROUND, "marker.line.color": INK}}
    for name, symbol in (("start", "circle"), ("end", "star")):
        marker = {"symbol": symbol, "line": {"width": 1.5}}
        figure.add_scatter(name=name, legendgroup=f"{name}s", marker=marker, **style)


def choose_text_positions(ends: Array) -> Sequence[str]:
    """Choose the side of each end (n, 2) for its name: away from the nearest other ends."""
    positions = ends / (np.ptp(ends, axis=0) + 1e-12)
    sides = []
    for position in positions:
        gaps = position - positions
        push = (gaps / ((gaps**2).sum(1, keepdims=True) + 1e-9)).sum(0)
        angle = np.arctan2(push[1], push[0]) if np.isfinite(push).all() and push.any() else 0.785
        sides.append(TEXT_POSITIONS[round(angle / (np.pi / 4)) % 8])
    return sides
