"""Adds the paths of a map to a plotly figure: outlined lines from a ring to a star.

`assets/charts.js` animates the paths and applies the page's colours that a trace's `meta` names.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from latentforge.findings import FRAMES, Scatter
from latentforge.rendering.palette import colour

INK, GROUND = "--fg", "--bg"  # CSS variables of the page: text and background colour
WAYS = (
    *("middle right", "top right", "top center", "top left"),
    *("middle left", "bottom left", "bottom center", "bottom right"),
)


def array(values: Any) -> np.ndarray[Any, Any]:
    """A tensor on any device, or an array, as a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def numbers(values: Any) -> list[float | None]:
    """Values with five significant digits, more than a screen shows; None, a gap, if not finite."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in array(values).tolist()]


def text(words: object) -> str:
    """Escape a text, because plotly parses markup; a class named `<b>` is shown literally."""
    return html.escape(str(words), quote=False)


def frames(item: Scatter) -> int:
    """The number of animation frames, in which all paths grow together; 0 if none can grow."""
    longest = max(map(len, item.paths.values()), default=0)
    return min(FRAMES, longest) if longest > 1 else 0


def add_paths(figure: go.Figure, item: Scatter) -> None:
    """Draw a single path in the text colour, or several in the same colours as the PNG, each named
    at its end. Lines come first, so that they do not cover a ring or a star."""
    walks = [(i, name, array(p).reshape(-1, 2)) for i, (name, p) in enumerate(item.paths.items())]
    walks = [walk for walk in walks if len(walk[2])]
    if not walks:
        return
    several = len(walks) > 1
    fills = [colour(item.classes.index(n) if n in item.classes else i) for i, n, _ in walks]
    places = []
    for (_, name, path), fill in zip(walks, fills, strict=True):
        places.append(_line(figure, path, name, fill if several else ""))
    _starts(figure, np.stack([path[0] for *_, path in walks]), fills if several else None)
    ends = np.stack([path[-1] for *_, path in walks])
    star = {"symbol": "star", "size": 16, "line": {"width": 1.2}}
    inked = {"marker.line.color": INK}
    look: dict[str, Any] = {"meta": {"colours": inked, "ends": places}, "mode": "markers"}
    if several:
        star["color"] = fills
        inked["textfont.color"] = INK
        names = [text(name if len(name) <= 20 else f"{name[:19]}…") for _, name, _ in walks]
        look |= {"mode": "markers+text", "text": names, "textposition": away(ends)}
        look["textfont"] = {"size": 14, "weight": 700}
    else:
        inked["marker.color"] = GROUND
    _marks(figure, ends, "ends", marker=star, **look)
    _legend(figure)


def _line(figure: go.Figure, path: np.ndarray[Any, Any], name: str, fill: str) -> int:
    """Add an outline and the line above it; returns the index of the line's trace. Without `fill`
    it is a single path, which has a legend entry that can hide it."""
    x, y = numbers(path[:, 0]), numbers(path[:, 1])
    look: dict[str, Any] = {"x": x, "y": y, "mode": "lines"}
    look["legendgroup"] = "ends" if fill else "path"
    rim = {"colours": {"line.color": INK if fill else GROUND}, "grows": True}
    figure.add_scatter(**look, line={"width": 3.8}, meta=rim, showlegend=False)
    line = {"colours": {} if fill else {"line.color": INK}, "grows": True}
    stroke = {"width": 2.2, **({"color": fill} if fill else {})}
    figure.add_scatter(**look, name=text(name), line=stroke, meta=line, showlegend=not fill)
    return len(figure.data) - 1


def _starts(figure: go.Figure, places: np.ndarray[Any, Any], fills: list[str] | None) -> None:
    """Draw open rings at the starts; coloured rings have an outline."""
    ring: dict[str, Any] = {"symbol": "circle", "size": 10, "line": {"width": 2.2}}
    colours = {"marker.color": GROUND}
    if fills:
        ring["line"]["color"] = fills
        rim = {"symbol": "circle", "size": 14}
        _marks(figure, places, "starts", marker=rim, meta={"colours": {"marker.color": INK}})
    else:
        colours["marker.line.color"] = INK
    _marks(figure, places, "starts", marker=ring, meta={"colours": colours})


def _marks(figure: go.Figure, places: np.ndarray[Any, Any], group: str, **look: Any) -> None:
    x, y = numbers(places[:, 0]), numbers(places[:, 1])
    look = {"mode": "markers", **look}
    figure.add_scatter(x=x, y=y, legendgroup=group, showlegend=False, **look)


def _legend(figure: go.Figure) -> None:
    """Add legend entries for the ring and the star, as traces without points."""
    for name, symbol in (("start", "circle"), ("end", "star")):
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=name,
            legendgroup=f"{name}s",
            showlegend=True,
            marker={"symbol": symbol, "line": {"width": 1.5}},
            meta={"colours": {"marker.color": GROUND, "marker.line.color": INK}},
        )


def away(ends: np.ndarray[Any, Any]) -> Sequence[str]:
    """The side of each end (n, 2) for its name: the side away from the nearest other ends."""
    spans = np.ptp(ends, axis=0) + 1e-12 if len(ends) else 1.0
    places = ends / spans
    found = []
    for place in places:
        gaps = place - places
        push = (gaps / ((gaps**2).sum(1, keepdims=True) + 1e-9)).sum(0)
        angle = np.arctan2(push[1], push[0]) if np.isfinite(push).all() and push.any() else 0.785
        found.append(WAYS[round(angle / (np.pi / 4)) % 8])
    return found
