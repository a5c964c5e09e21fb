"""Draws scatter plots of codes: points coloured by class, labels, paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from latentforge.findings import Scatter
from latentforge.rendering.canvas import LABEL, LEGEND, charts, escape_dollars, text_width, tidy
from latentforge.rendering.images import Array, one_unit, to_numpy
from latentforge.rendering.palette import COLOURS, INK, colour, marker

SIDE = 6.0  # inches of the longer side of a map
FREE = 0.8  # height by width of a map whose axes have a unit each
FEW = 1000  # points, so large that each class can have its own marker
NAMED = 30  # classes at the most whose names stand in the map
LISTED = 40  # classes at the most in a legend
NOW = "s"  # marks where a walk is that has not ended
Limits = tuple[tuple[float, float], tuple[float, float]]


def draw_scatter(item: Scatter, note: str = "") -> Figure:
    """The map on a figure of its own, its legend at the right."""
    limits = limits_of([item])
    ratio = tallness(limits)
    wide, tall = (SIDE, SIDE * ratio) if ratio < 1 else (SIDE / ratio, SIDE)
    names = [shown(name) for name in item.classes] if item.labels is not None else []
    names += ["start"] if item.paths else []
    columns = 1 + (len(item.classes) > 14)
    legend = max((text_width(name, LABEL - 1) + 0.55 for name in names), default=0.1) * columns
    figure = charts(wide + 0.75 + legend, tall + 0.55, item.title, note)
    axes = figure.subplots()
    frame_map(axes, item, limits)
    fill_map(axes, item, limits)
    fill_paths(axes, item)
    if handles := [*class_legend(item), *(ends_legend() if item.paths else [])]:
        axes.legend(handles=handles, ncols=columns, **LEGEND)
    return figure


def limits_of(items: Sequence[Scatter]) -> Limits:
    """One pair of limits that holds all finite points and paths of all items. Where both axes share
    a unit, at most twice as wide as high and the other way about; else each axis has its own."""
    parts = {id(p): p for item in items for p in (item.points, *item.paths.values())}
    arrays = [to_numpy(part).astype(float) for part in parts.values() if len(part)]
    seen = np.concatenate(arrays)
    seen = seen[np.isfinite(seen).all(1)]
    if not len(seen):
        return (-1.0, 1.0), (-1.0, 1.0)
    low, high = seen.min(0), seen.max(0)
    span = high - low
    side = max(float(span.max()), 1e-6 * float(np.abs(seen).max()), 1e-6)
    shared = not span.min() or one_unit(span)
    half = (np.maximum(span, side / 2) if shared else span) * 0.54
    middle = (low + high) / 2
    (x0, y0), (x1, y1) = (middle - half).tolist(), (middle + half).tolist()
    return (x0, x1), (y0, y1)


def spans_of(limits: Limits) -> Array:
    return np.array([high - low for low, high in limits])


def tallness(limits: Limits) -> float:
    """The height of a map by its width."""
    wide, tall = spans_of(limits)
    return float(tall / wide) if one_unit(spans_of(limits)) else FREE


def inch(limits: Limits, side: float) -> Array:
    """An inch of both axes, (2,), where the longer of them has `side` inches."""
    ratio = tallness(limits)
    return spans_of(limits) / (side * np.array([min(1, 1 / ratio), min(1, ratio)]))


def frame_map(axes: Axes, item: Scatter, limits: Limits) -> None:
    """Axes of these limits, with their titles, and with the same unit on both unless that would
    make a sliver."""
    tidy(axes)
    aspect: Literal["equal", "auto"] = "equal" if one_unit(spans_of(limits)) else "auto"
    axes.set(xlim=limits[0], ylim=limits[1], aspect=aspect)
    axes.set(xlabel=escape_dollars(item.axes[0]), ylabel=escape_dollars(item.axes[1]))


def fill_map(axes: Axes, item: Scatter, limits: Limits, side: float = SIDE) -> None:
    """The points, and the names of the classes at their medians, in axes whose longer side has so
    many inches."""
    points = to_numpy(item.points).astype(float)
    count = len(points)
    size = float(np.clip(420 / np.sqrt(count), 4, 36)) * side / SIDE
    opacity = 0.9 if count <= 500 else 0.7 if count <= 3000 else 0.55
    look: dict[str, Any] = {"s": size, "alpha": opacity, "linewidths": 0, "zorder": 2}
    labels = labels_of(item)
    if labels is None:
        axes.scatter(*points.T, color=COLOURS[0], **look)
        return
    few = count <= FEW
    markers = np.array([marker(i, few) for i in labels.tolist()])
    colours = np.array([colour(i) for i in labels.tolist()])
    for kind in dict.fromkeys(markers.tolist()):  # points of one marker stay in the data's order
        of = markers == kind
        axes.scatter(points[of, 0], points[of, 1], c=colours[of].tolist(), marker=kind, **look)
    letters = LABEL + (2 if side == SIDE else -1)
    if len(item.paths) > 1:
        return  # whose ends have names of their own
    for name, at in places(points, labels, item.classes, letters, inch(limits, side)):
        axes.text(
            *at, escape_dollars(name), ha="center", va="center", weight="bold", color=INK, zorder=5,
            fontsize=letters, path_effects=halo(2.5),
        )  # fmt: skip


def labels_of(item: Scatter) -> Array | None:
    return None if item.labels is None else to_numpy(item.labels).astype(int)


def shown(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"


def places(
    points: Array, labels: Array, classes: Sequence[str], size: float, unit: Array | float
) -> list[tuple[str, tuple[float, float]]]:
    """Where to write the name of each class that has points: at its median, moved off the others
    where classes lie upon each other. An inch of the axes is `unit` long, or (2,) of each."""
    there = np.unique(labels).tolist()
    if len(there) > NAMED or not classes:
        return []
    finite = np.isfinite(points).all(1)
    names, at = [], []
    for i in there:
        own = points[(labels == i) & finite]
        if 0 <= i < len(classes) and len(own):
            names.append(shown(classes[i]))
            at.append(np.median(own, 0))
    moved = _apart(np.array(at).reshape(-1, 2) / unit, names, size) * unit
    return [(name, (float(x), float(y))) for name, (x, y) in zip(names, moved, strict=True)]


def _apart(at: Array, names: Sequence[str], size: float) -> Array:
    """The places, in inches, pushed apart until no two names cover each other."""
    wide = np.array([text_width(name, size) * 1.15 + 0.03 for name in names])  # it is bold
    tall = size / 72 * 1.1
    at = at.copy()
    for _ in range(50):
        still = True
        for i in range(len(at)):
            for j in range(i):
                gap = at[i] - at[j]
                over = np.array([(wide[i] + wide[j]) / 2, tall]) - np.abs(gap)
                if (over <= 0).any():
                    continue
                axis = int(np.argmin(over))  # the shorter way out
                step = np.zeros(2)
                step[axis] = over[axis] * (0.51 if gap[axis] >= 0 else -0.51)
                at[i], at[j], still = at[i] + step, at[j] - step, False
        if still:
            break
    return at


def fill_paths(axes: Axes, item: Scatter, ended: bool = True, side: float = SIDE) -> None:
    """Walks with a ring at the start and a star at the end, or a square where they are now: one in
    black, of several each in a colour, with its name at the end."""
    several = len(item.paths) > 1
    mark, size = ("*", 15) if ended else (NOW, 7)
    names, ends, fills = [], [], []
    for i, (name, path) in enumerate(item.paths.items()):
        x, y = to_numpy(path).astype(float).reshape(-1, 2).T
        of = item.classes.index(name) if name in item.classes else i
        fill, edge = (colour(of), halo(2.6, INK)) if several else (INK, halo(3.2))
        axes.plot(x, y, color=fill, lw=1.4, zorder=6, path_effects=edge)
        inside = fill if several else "white"
        axes.plot(x[:1], y[:1], "o", ms=7, mfc=inside, mec=INK, mew=1.4, zorder=7)
        if len(x) > 1:
            axes.plot(x[-1:], y[-1:], mark, ms=size, mfc=inside, mec=INK, mew=1.2, zorder=8)
        if len(x) and np.isfinite([x[-1], y[-1]]).all():
            names.append(shown(name))
            ends.append((x[-1], y[-1]))
            fills.append(fill)
    if several:
        _name_ends(axes, names, np.array(ends).reshape(-1, 2), fills, side)


def _name_ends(
    axes: Axes, names: Sequence[str], ends: Array, fills: Sequence[str], side: float
) -> None:
    """The names of walks beside their ends (n, 2), inside the axes and not upon each other, in
    frames of their colours."""
    limits = axes.get_xlim(), axes.get_ylim()
    unit, size = inch(limits, side), 1.35 * LABEL  # with the frame
    half = np.array([[0.57 * text_width(name, LABEL) + 0.04, size / 144] for name in names])
    half = half.reshape(-1, 2)
    low, high = (np.array(ends_of) / unit for ends_of in zip(*limits, strict=True))
    at = ends / unit
    right = at[:, 0] + 2 * half[:, 0] < high[0] - 0.2  # else at the left, where there is room
    at = at + np.stack([np.where(right, 1, -1) * (half[:, 0] + 0.14), np.full(len(at), 0.12)], 1)
    for _ in range(5):  # what is pushed out comes back, perhaps upon another
        at = np.clip(_apart(at, names, size), low + half, np.maximum(high - half, low + half))
    for name, end, place, fill in zip(names, ends, at * unit, fills, strict=True):
        axes.annotate(
            escape_dollars(name), (end[0], end[1]), (place[0], place[1]), ha="center", va="center",
            fontsize=LABEL, weight="bold", color=INK, zorder=9,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": fill, "lw": 1.4},
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.7},
        )  # fmt: skip


def halo(width: float, around: str = "white") -> list[AbstractPathEffect]:
    """White around a line or a text, so that it can be read over points."""
    return [withStroke(linewidth=width, foreground=around)]


def ends_legend(growing: bool = False) -> list[Artist]:
    """Samples of where a walk starts and ends, and of where it is while it grows."""
    now = [_sample("now", NOW, "white", INK)] if growing else []
    return [_sample("start", "o", "white", INK), *now, _sample("end", "*", "white", INK, 11)]


def class_legend(item: Scatter) -> list[Artist]:
    """A sample of each class that has points."""
    labels = labels_of(item)
    few = len(item.points) <= FEW
    there = [] if labels is None or not item.classes else np.unique(labels).tolist()
    there = [i for i in there if 0 <= i < len(item.classes)]
    handles: list[Artist] = [
        _sample(shown(item.classes[i]), marker(i, few), colour(i)) for i in there[:LISTED]
    ]
    if len(there) > LISTED:
        handles.append(_sample(f"and {len(there) - LISTED} more", "", "none"))
    return handles


def _sample(label: str, mark: str, fill: str, edge: str = "none", size: float = 7) -> Line2D:
    return Line2D(
        [],
        [],
        ls="",
        marker=mark or "None",
        ms=size,
        mfc=fill,
        mec=edge,
        label=escape_dollars(label),
    )
