"""Draws scatter plots of codes: points coloured by class, class names, paths."""

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

SIDE = 6.0  # longer side of a map, inches
FREE = 0.8  # height divided by width of a map if the axes have different units
FEW = 1000  # up to this many points are large enough for a different marker per class
NAMED = 30  # maximum classes with names in the map
LISTED = 40  # maximum classes in a legend
NOW = "s"  # marker of the current end of an unfinished path
Limits = tuple[tuple[float, float], tuple[float, float]]


def draw_scatter(item: Scatter, note: str = "") -> Figure:
    """Draw a map as a figure, with the legend at the right."""
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
    """The axis limits that contain all finite points and paths of all items. If both axes share a
    unit, one is at most twice as long as the other."""
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
    """The height of a map divided by its width."""
    wide, tall = spans_of(limits)
    return float(tall / wide) if one_unit(spans_of(limits)) else FREE


def inch(limits: Limits, side: float) -> Array:
    """The data units per inch of each axis, (2,), if the longer axis has `side` inches."""
    ratio = tallness(limits)
    return spans_of(limits) / (side * np.array([min(1, 1 / ratio), min(1, ratio)]))


def frame_map(axes: Axes, item: Scatter, limits: Limits) -> None:
    """Set limits and titles of the axes, with the same unit on both unless the plot would then be
    very narrow."""
    tidy(axes)
    aspect: Literal["equal", "auto"] = "equal" if one_unit(spans_of(limits)) else "auto"
    axes.set(xlim=limits[0], ylim=limits[1], aspect=aspect)
    axes.set(xlabel=escape_dollars(item.axes[0]), ylabel=escape_dollars(item.axes[1]))


def fill_map(axes: Axes, item: Scatter, limits: Limits, side: float = SIDE) -> None:
    """Draw the points, and the names of the classes at their medians, in axes with a longer side
    of `side` inches."""
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
    for kind in dict.fromkeys(markers.tolist()):  # points of one marker keep the data's order
        of = markers == kind
        axes.scatter(points[of, 0], points[of, 1], c=colours[of].tolist(), marker=kind, **look)
    letters = LABEL + (2 if side == SIDE else -1)
    if len(item.paths) > 1:
        return  # the ends of the paths have names
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
    """The position of the name of each class that has points: its median, moved if names overlap.
    `unit` is the data units per inch, for both axes or (2,)."""
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
    """Move the positions, in inches, apart until no two names overlap."""
    wide = np.array([text_width(name, size) * 1.15 + 0.03 for name in names])  # names are bold
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
                axis = int(np.argmin(over))  # the axis with the smaller overlap
                step = np.zeros(2)
                step[axis] = over[axis] * (0.51 if gap[axis] >= 0 else -0.51)
                at[i], at[j], still = at[i] + step, at[j] - step, False
        if still:
            break
    return at


def fill_paths(axes: Axes, item: Scatter, ended: bool = True, side: float = SIDE) -> None:
    """Draw paths with a ring at the start and a star at the end, or a square if they have not
    `ended`. A single path is black; several have different colours and their names at the ends."""
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
    """Write the names of paths beside their ends (n, 2), inside the axes and without overlap, in
    frames of the paths' colours."""
    limits = axes.get_xlim(), axes.get_ylim()
    unit, size = inch(limits, side), 1.35 * LABEL  # with the frame
    half = np.array([[0.57 * text_width(name, LABEL) + 0.04, size / 144] for name in names])
    half = half.reshape(-1, 2)
    low, high = (np.array(ends_of) / unit for ends_of in zip(*limits, strict=True))
    at = ends / unit
    right = at[:, 0] + 2 * half[:, 0] < high[0] - 0.2  # otherwise at the left, inside the axes
    at = at + np.stack([np.where(right, 1, -1) * (half[:, 0] + 0.14), np.full(len(at), 0.12)], 1)
    for _ in range(5):  # clipping to the axes may cause a new overlap
        at = np.clip(_apart(at, names, size), low + half, np.maximum(high - half, low + half))
    for name, end, place, fill in zip(names, ends, at * unit, fills, strict=True):
        axes.annotate(
            escape_dollars(name), (end[0], end[1]), (place[0], place[1]), ha="center", va="center",
            fontsize=LABEL, weight="bold", color=INK, zorder=9,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": fill, "lw": 1.4},
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.7},
        )  # fmt: skip


def halo(width: float, around: str = "white") -> list[AbstractPathEffect]:
    """An outline around a line or text, so that it is legible over points."""
    return [withStroke(linewidth=width, foreground=around)]


def ends_legend(growing: bool = False) -> list[Artist]:
    """Legend entries for the start and end of a path, and for its current end if it grows."""
    now = [_sample("now", NOW, "white", INK)] if growing else []
    return [_sample("start", "o", "white", INK), *now, _sample("end", "*", "white", INK, 11)]


def class_legend(item: Scatter) -> list[Artist]:
    """Legend entries for the classes that have points, at most LISTED."""
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
