"""Draws scatter plots of codes: points coloured by class or by a number, class names, paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from latentforge.findings import Scatter
from latentforge.rendering.canvas import (
    LABEL,
    LEGEND,
    apply_style,
    create_chart_figure,
    escape_dollars,
    text_width,
)
from latentforge.rendering.images import Array, can_share_unit, to_numpy
from latentforge.rendering.palette import (
    COLOURS,
    FAINT,
    INK,
    SCALE,
    colour,
    marker,
    path_colours,
    scale_limits,
    shorten_name,
)

SIDE = 6.0  # longer side of a map, inches
DEFAULT_RATIO = 0.8  # height divided by width of a map if the axes have different units
FEW = 1000  # up to this many points are large enough for a different marker per class
SAMPLE = 500  # points of a class among which the densest one is found
MAX_NAMED = 30  # maximum classes with names in the map
MAX_LISTED = 40  # maximum classes in a legend
COLOUR_BAR = 0.85  # width of a colour bar with its labels, inches
COLOUR_MAP = LinearSegmentedColormap.from_list("latentforge", SCALE)
CURRENT_END = "s"  # marker of the current end of an unfinished path
Limits = tuple[tuple[float, float], tuple[float, float]]


def draw_scatter(item: Scatter, note: str = "") -> Figure:
    """Draw a map as a figure, with the legend or the colour bar at the right."""
    limits = compute_limits([item])
    ratio = compute_ratio(limits)
    width, height = (SIDE, SIDE * ratio) if ratio < 1 else (SIDE / ratio, SIDE)
    names = [shorten_name(name) for name in item.classes] if is_by_class(item) else []
    names += ["start"] if item.paths else []
    columns = 1 + (len(item.classes) > 14)
    legend = max((text_width(name, LABEL - 1) + 0.55 for name in names), default=0.1) * columns
    scale = compute_scale([item])
    legend += COLOUR_BAR if scale else 0
    figure = create_chart_figure(width + 0.75 + legend, height + 0.55, item.title, note)
    axes = figure.subplots()
    frame_map(axes, item, limits)
    fill_map(axes, item, limits, scale=scale)
    fill_paths(axes, item)
    ends = create_ends_legend() if item.paths else []
    if scale:
        add_colour_bar(axes, scale, item.values_title)
        add_legend_below(axes, ends, 0.5 / height)
    elif handles := [*create_class_legend(item), *ends]:
        axes.legend(handles=handles, ncols=columns, **LEGEND)
    return figure


def is_by_class(item: Scatter) -> bool:
    """Whether the points are coloured by their labels."""
    return item.labels is not None and item.values is None


def compute_scale(items: Sequence[Scatter]) -> Normalize | None:
    """The scale of colours that all items share; None if none has values."""
    values = [to_numpy(item.values).astype(float) for item in items if item.values is not None]
    if not values:
        return None
    return Normalize(*scale_limits(float(end) for v in values for end in (v.min(), v.max())))


def add_colour_bar(axes: Axes, scale: Normalize, title: str) -> None:
    """Add the colour bar at the right of the axes."""
    mappable = ScalarMappable(scale, COLOUR_MAP)
    bar = axes.figure.colorbar(mappable, ax=axes, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LABEL - 1, color=FAINT, labelcolor=INK, length=3)
    bar.set_label(escape_dollars(title), fontsize=LABEL, color=INK)


def add_legend_below(axes: Axes, handles: Sequence[Artist], below: float) -> None:
    """Add a legend below the title of the x-axis, if it has entries. `below` is its distance as a
    fraction of the height of the axes."""
    if handles:
        position = {"loc": "upper center", "bbox_to_anchor": (0.5, -below)}
        legend_style = {**LEGEND, **position}
        axes.legend(handles=handles, ncols=len(handles), columnspacing=1.2, **legend_style)


def compute_limits(items: Sequence[Scatter]) -> Limits:
    """The axis limits that contain all finite points and paths of all items. If both axes share a
    unit, one is at most twice as long as the other."""
    tensors = {id(p): p for item in items for p in (item.points, *item.paths.values())}
    arrays = [to_numpy(tensor).astype(float) for tensor in tensors.values() if len(tensor)]
    finite = np.concatenate(arrays)
    finite = finite[np.isfinite(finite).all(1)]
    if not len(finite):
        return (-1.0, 1.0), (-1.0, 1.0)
    low, high = finite.min(0), finite.max(0)
    span = high - low
    side = max(float(span.max()), 1e-6 * float(np.abs(finite).max()), 1e-6)
    one_scale = not span.min() or can_share_unit(span)
    half = (np.maximum(span, side / 2) if one_scale else span) * 0.54
    middle = (low + high) / 2
    (x0, y0), (x1, y1) = (middle - half).tolist(), (middle + half).tolist()
    return (x0, x1), (y0, y1)


def compute_spans(limits: Limits) -> Array:
    return np.array([high - low for low, high in limits])


def compute_ratio(limits: Limits) -> float:
    """The height of a map divided by its width."""
    width, height = compute_spans(limits)
    return float(height / width) if can_share_unit(compute_spans(limits)) else DEFAULT_RATIO


def units_per_inch(limits: Limits, side: float) -> Array:
    """The data units per inch of each axis, (2,), if the longer axis is `side` inches long."""
    ratio = compute_ratio(limits)
    return compute_spans(limits) / (side * np.array([min(1, 1 / ratio), min(1, ratio)]))


def frame_map(axes: Axes, item: Scatter, limits: Limits) -> None:
    """Set limits and titles of the axes, with the same unit on both unless the plot would then be
    very narrow."""
    apply_style(axes)
    aspect: Literal["equal", "auto"] = "equal" if can_share_unit(compute_spans(limits)) else "auto"
    axes.set(xlim=limits[0], ylim=limits[1], aspect=aspect)
    axes.set(xlabel=escape_dollars(item.axes[0]), ylabel=escape_dollars(item.axes[1]))


def fill_map(
    axes: Axes, item: Scatter, limits: Limits, side: float = SIDE, scale: Normalize | None = None
) -> None:
    """Draw the points, and the names of the classes at their densest points, in axes whose longer
    side has `side` inches. `scale` is that of the values, if there are any."""
    points = to_numpy(item.points).astype(float)
    count = len(points)
    size = float(np.clip(420 / np.sqrt(count), 4, 36)) * side / SIDE
    opacity = 0.9 if count <= 500 else 0.7 if count <= 3000 else 0.55
    style: dict[str, Any] = {"s": size, "alpha": opacity, "linewidths": 0, "zorder": 2}
    labels = get_labels(item)
    if item.values is not None:  # more opaque, as mixed colours would be those of other values
        colouring = {"c": to_numpy(item.values).astype(float), "cmap": COLOUR_MAP, "norm": scale}
        axes.scatter(*points.T, **{**style, **colouring, "alpha": 0.9})
        return
    if labels is None:
        axes.scatter(*points.T, color=COLOURS[0], **style)
        return
    few = count <= FEW
    markers = np.array([marker(i, few) for i in labels.tolist()])
    colours = np.array([colour(i) for i in labels.tolist()])
    for kind in dict.fromkeys(markers.tolist()):  # points of one marker keep the data's order
        mask = markers == kind
        x, y = points[mask].T
        axes.scatter(x, y, c=colours[mask].tolist(), marker=kind, **style)
    font_size = LABEL + (2 if side == SIDE else -1)
    if len(item.paths) > 1:
        return  # the ends of the paths have names instead
    unit = units_per_inch(limits, side)
    for name, position in place_names(points, labels, item.classes, font_size, unit):
        axes.text(
            *position, escape_dollars(name), ha="center", va="center", weight="bold", color=INK,
            zorder=5, fontsize=font_size, path_effects=halo(2.5),
        )  # fmt: skip


def get_labels(item: Scatter) -> Array | None:
    return None if item.labels is None else to_numpy(item.labels).astype(int)


def place_names(
    points: Array, labels: Array, classes: Sequence[str], size: float, unit: Array | float
) -> list[tuple[str, tuple[float, float]]]:
    """Place the name of each class that has points at its densest point, moved if names overlap.
    The mean and the median of a class in two groups may be at points of another class. `unit` is
    the number of data units per inch, for both axes or (2,)."""
    present = np.unique(labels).tolist()
    if len(present) > MAX_NAMED or not classes:
        return []
    finite = np.isfinite(points).all(1)
    names, positions = [], []
    for i in present:
        class_points = points[(labels == i) & finite]
        if 0 <= i < len(classes) and len(class_points):
            names.append(shorten_name(classes[i]))
            positions.append(find_densest(class_points / unit) * unit)
    moved = _separate(np.array(positions).reshape(-1, 2) / unit, names, size) * unit
    return [(name, (float(x), float(y))) for name, (x, y) in zip(names, moved, strict=True)]


def find_densest(points: Array) -> Array:
    """Return the point (2,) of points (n, 2) around which a quarter of them is closest. At most
    SAMPLE of the points are compared."""
    sample = points[:: -(-len(points) // SAMPLE)]
    rank = -(-len(sample) // 4)  # each point is itself the nearest, at distance 0
    distances = np.square(sample[:, None] - sample).sum(2)
    rank = min(rank, len(sample) - 1)
    nearest = np.partition(distances, rank, axis=1)[:, rank]
    densest: Array = sample[nearest.argmin()]
    return densest


def _separate(positions: Array, names: Sequence[str], size: float) -> Array:
    """Move the positions, in inches, apart until no two names overlap."""
    widths = np.array([text_width(name, size) * 1.15 + 0.03 for name in names])  # names are bold
    height = size / 72 * 1.1
    positions = positions.copy()
    for _ in range(50):
        settled = True
        for i in range(len(positions)):
            for j in range(i):
                gap = positions[i] - positions[j]
                overlap = np.array([(widths[i] + widths[j]) / 2, height]) - np.abs(gap)
                if (overlap <= 0).any():
                    continue
                axis = int(np.argmin(overlap))  # the axis with the smaller overlap
                step = overlap[axis] * (0.51 if gap[axis] >= 0 else -0.51)
                positions[i, axis] += step
                positions[j, axis] -= step
                settled = False
        if settled:
            break
    return positions


def fill_paths(axes: Axes, item: Scatter, finished: bool = True, side: float = SIDE) -> None:
    """Draw paths with a ring at the start and a star at the end, or a square if they have not
    `finished`. A single path is black; several have different colours and names at the ends."""
    several = len(item.paths) > 1
    mark, size = ("*", 15) if finished else (CURRENT_END, 7)
    names, ends, fills = [], [], []
    colours = path_colours(item.paths, item.classes) if several else [INK] * len(item.paths)
    edge = halo(2.6, INK) if several else halo(3.2)
    for (name, path), fill in zip(item.paths.items(), colours, strict=True):
        x, y = to_numpy(path).astype(float).reshape(-1, 2).T
        axes.plot(x, y, color=fill, lw=1.4, zorder=6, path_effects=edge)
        marker_fill = fill if several else "white"
        axes.plot(x[:1], y[:1], "o", ms=7, mfc=marker_fill, mec=INK, mew=1.4, zorder=7)
        if len(x) > 1:
            axes.plot(x[-1:], y[-1:], mark, ms=size, mfc=marker_fill, mec=INK, mew=1.2, zorder=8)
        if len(x) and np.isfinite([x[-1], y[-1]]).all():
            names.append(shorten_name(name))
            ends.append((x[-1], y[-1]))
            fills.append(fill)
    if several and names:
        _name_ends(axes, names, np.array(ends), fills, side)


def _name_ends(
    axes: Axes, names: Sequence[str], ends: Array, fills: Sequence[str], side: float
) -> None:
    """Write the names of paths beside their ends (n, 2), inside the axes and without overlap, in
    frames of the paths' colours."""
    limits = axes.get_xlim(), axes.get_ylim()
    unit, size = units_per_inch(limits, side), 1.35 * LABEL  # including the frame
    half = np.array([[0.57 * text_width(name, LABEL) + 0.04, size / 144] for name in names])
    low, high = (np.array(limit) / unit for limit in zip(*limits, strict=True))
    positions = ends / unit
    # at the right if there is space inside the axes, otherwise at the left
    right = positions[:, 0] + 2 * half[:, 0] < high[0] - 0.2
    positions[:, 0] += np.where(right, 1, -1) * (half[:, 0] + 0.14)
    positions[:, 1] += 0.12
    lowest, highest = low + half, np.maximum(high - half, low + half)
    for _ in range(5):  # clipping to the axes may cause a new overlap
        positions = np.clip(_separate(positions, names, size), lowest, highest)
    for name, end, position, fill in zip(names, ends, positions * unit, fills, strict=True):
        axes.annotate(
            escape_dollars(name), (end[0], end[1]), (position[0], position[1]), ha="center",
            va="center", fontsize=LABEL, weight="bold", color=INK, zorder=9,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": fill, "lw": 1.4},
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.7},
        )  # fmt: skip


def halo(width: float, ring_colour: str = "white") -> list[AbstractPathEffect]:
    """An outline around a line or text, so that it is legible over points."""
    return [withStroke(linewidth=width, foreground=ring_colour)]


def create_ends_legend(growing: bool = False) -> list[Artist]:
    """Legend entries for the start and end of a path, and for its current end if it grows."""
    entries: list[Artist] = [_create_entry("start", "o", "white", INK)]
    if growing:
        entries.append(_create_entry("now", CURRENT_END, "white", INK))
    return [*entries, _create_entry("end", "*", "white", INK, 11)]


def create_class_legend(item: Scatter) -> list[Artist]:
    """Legend entries for the classes that have points, at most MAX_LISTED."""
    labels = get_labels(item) if is_by_class(item) else None
    few = len(item.points) <= FEW
    present = [] if labels is None else np.unique(labels).tolist()
    present = [i for i in present if 0 <= i < len(item.classes)]
    handles: list[Artist] = [
        _create_entry(shorten_name(item.classes[i]), marker(i, few), colour(i))
        for i in present[:MAX_LISTED]
    ]
    if len(present) > MAX_LISTED:
        handles.append(_create_entry(f"and {len(present) - MAX_LISTED} more", "None", "none"))
    return handles


def _create_entry(label: str, mark: str, fill: str, edge: str = "none", size: float = 7) -> Line2D:
    return Line2D(
        [], [], ls="", marker=mark, ms=size, mfc=fill, mec=edge, label=escape_dollars(label)
    )
