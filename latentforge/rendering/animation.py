"""Draws animations as GIF: every frame is a row of panels.

The parts that are the same in all frames are drawn once, as a background.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from latentforge.findings import Bars, Film, ImageGrid, Scatter
from latentforge.rendering import scatter
from latentforge.rendering.canvas import (
    LABEL,
    LEGEND,
    create_chart_figure,
    escape_dollars,
    height,
    text_width,
)
from latentforge.rendering.charts import bar_limits, fill_bars, frame_bars
from latentforge.rendering.image_grid import compute_layout, fill_grid, wrap_titles
from latentforge.rendering.images import Array
from latentforge.rendering.palette import COLOURS as CLASSES
from latentforge.rendering.palette import INK, colour

DPI = 110  # a frame is small in inches; a page may show it at half its size
STEP, LAST = 120, 1500  # milliseconds per frame; the last one is shown longer
COLOURS = 128  # palette entries of a GIF, besides the exact colours
MIN_COLOUR_DISTANCE = 9  # levels; Pillow's nearest-colour lookup merges closer colours
PANEL_HEIGHT = 3.2  # height of the panels with their titles, inches
MIN_WIDTH = 3.4  # minimum width, for the titles, inches
FRAME_TITLE_HEIGHT = 0.28  # height of the line with a frame's title, inches

Fill = Callable[[Any], None]  # draws the parts of a panel that change from frame to frame


def draw_frames(film: Film, note: str = "") -> list[Array]:
    """Draw every frame as uint8 (H, W, 3), all of the same size and with the same axes."""
    figure, panel_axes = _prepare_panels(film, note)
    title = figure.texts[-1]
    canvas: Any = figure.canvas
    last = _draw_changes(panel_axes, film.frames[-1])
    canvas.draw()  # computes the layout for the text of a frame; it is fixed from here on
    figure.set_layout_engine("none")
    _remove_artists(last, panel_axes)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for i, panels in enumerate(film.frames):
        canvas.restore_region(background)
        title.set_text(escape_dollars(film.frame_titles[i]) if i < len(film.frame_titles) else "")
        artists = _draw_changes(panel_axes, panels)
        for artist in [title, *artists, *(axes.title for axes, _ in panel_axes)]:
            figure.draw_artist(artist)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        _remove_artists(artists, panel_axes)
    return frames


def _draw_changes(panel_axes: list[tuple[Axes, Fill]], panels: Sequence[Any]) -> list[Artist]:
    """Draw the changing parts of a frame. Returns the new artists, the lowest z-order first."""
    new_artists: list[Artist] = []
    for (axes, fill), panel in zip(panel_axes, panels, strict=True):
        before = set(axes.get_children())
        fill(panel)
        axes.set_title(escape_dollars(panel.title), fontsize=LABEL + 1, color=INK, pad=_pad(panel))
        added = [artist for artist in axes.get_children() if artist not in before]
        new_artists += sorted(added, key=lambda artist: artist.get_zorder())
    return new_artists


def _pad(panel: Any) -> float:
    """The distance in points from a panel to its title, with space for column titles in between."""
    if not isinstance(panel, ImageGrid) or not any(panel.column_titles):
        return 5.0
    layout = compute_layout(panel)
    return 9.0 + 72 * max(height(text, layout.size) for text in wrap_titles(panel, layout))


def _remove_artists(artists: Sequence[Artist], panel_axes: list[tuple[Axes, Fill]]) -> None:
    for artist in artists:
        artist.remove()
    for axes, _ in panel_axes:
        axes.set_title("")


def _prepare_panels(film: Film, note: str) -> tuple[Figure, list[tuple[Axes, Fill]]]:
    """Draw the parts that all frames share. Returns the figure, whose last text is the frame title,
    and the axes and the fill function of each panel."""
    panels = list(zip(*film.frames, strict=True))  # the frames of each panel
    maps = [items[0] for items in panels if isinstance(items[0], Scatter)]
    bar_labels = [tuple(items[0].labels) for items in panels if isinstance(items[0], Bars)]
    in_bars = [tuple(item.classes) in bar_labels for item in maps]  # the bars serve as the legend
    widths = [_panel_width(items, not all(in_bars)) for items in panels]
    total_width = max(sum(widths) + 0.3, MIN_WIDTH)
    body = _panel_height(panels, widths) + FRAME_TITLE_HEIGHT
    figure = create_chart_figure(total_width, body, film.title, note)
    figure.set_dpi(DPI)
    engine: Any = figure.get_layout_engine()
    left, bottom, rect_width, rect_height = engine.get()["rect"]
    title_height = FRAME_TITLE_HEIGHT / figure.get_figheight()
    engine.set(rect=(left, bottom, rect_width, rect_height - title_height), wspace=0.06)
    row = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0].tolist()
    panel_axes: list[tuple[Axes, Fill]] = []
    for axes, items, width in zip(row, panels, widths, strict=True):
        match items[0]:
            case Scatter():
                panel_axes.append((axes, _prepare_map(axes, cast(Any, items), not all(in_bars))))
            case Bars() as bars:
                classes = any(tuple(item.classes) == tuple(bars.labels) for item in maps)
                panel_axes.append((axes, _prepare_bars(axes, cast(Any, items), width, classes)))
            case ImageGrid():
                panel_axes.append((axes, partial(fill_grid, axes)))
    figure.text(0.5, bottom + rect_height, "", ha="center", va="top", fontsize=LABEL + 1, color=INK)
    return figure, panel_axes


def _panel_width(items: Sequence[Any], legend: bool) -> float:
    """The width of a panel in inches, including the legend of a map."""
    match items[0]:
        case Scatter() as item:
            ratio = scatter.compute_ratio(scatter.compute_limits(items))
            if any(item.values is not None for item in items):
                legend_width = scatter.COLOUR_BAR
            else:
                names = item.classes if legend else ()
                widths = (text_width(name, LABEL - 1) + 0.3 for name in names)
                legend_width = max(widths, default=0.0)
            return (PANEL_HEIGHT - 0.8) * min(1.6, 1 / ratio) + 0.6 + legend_width
        case Bars() as item:
            return min(max(2.3, 0.8 + 0.22 * len(item.labels) * len(item.series)), 4.2)
        case grid:
            layout = compute_layout(grid)
            return min(max(1.4, 1.8 * layout.width / layout.height(len(grid.rows))), 4.2)


def _panel_height(panels: Sequence[Sequence[Any]], widths: Sequence[float]) -> float:
    """The height of the panels in inches: PANEL_HEIGHT, or less if all panels are wide images."""
    tallest = 0.0
    for items, width in zip(panels, widths, strict=True):
        if not isinstance(items[0], ImageGrid):
            return PANEL_HEIGHT
        layout = compute_layout(items[0])
        tallest = max(tallest, 0.5 + width * layout.height(len(items[0].rows)) / layout.width)
    return min(PANEL_HEIGHT, tallest)


def _prepare_map(axes: Axes, items: Sequence[Scatter], legend: bool) -> Fill:
    limits, first = scatter.compute_limits(items), items[0]
    scatter.frame_map(axes, first, limits)
    ends: list[Artist] = []
    if any(item.paths for item in items):
        growing = not all(has_final_paths(item, items) for item in items)
        ends = scatter.create_ends_legend(growing)
    handles = [*scatter.create_class_legend(first), *ends]
    scale = scatter.compute_scale(items)
    if scale:
        scatter.add_colour_bar(axes, scale, first.values_title)
    if legend and handles and not scale:
        axes.legend(handles=handles, **{**LEGEND, "fontsize": LABEL - 2})
    else:
        scatter.add_legend_below(axes, ends, 0.18)
    static = all(has_same_points(first, item) for item in items[1:])
    if static:
        scatter.fill_map(axes, first, limits, PANEL_HEIGHT - 0.8, scale)

    def fill(item: Scatter) -> None:
        if not static:
            scatter.fill_map(axes, item, limits, PANEL_HEIGHT - 0.8, scale)
        scatter.fill_paths(axes, item, has_final_paths(item, items), PANEL_HEIGHT - 0.8)

    return fill


def has_final_paths(item: Scatter, items: Sequence[Scatter]) -> bool:
    """Whether the paths of a frame have their final lengths."""
    return [*map(len, item.paths.values())] == [*map(len, items[-1].paths.values())]


def has_same_points(one: Scatter, other: Scatter) -> bool:
    """Whether two maps show the same points in the same colours."""
    pairs = [(getattr(one, key), getattr(other, key)) for key in ("points", "labels", "values")]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def _prepare_bars(axes: Axes, items: Sequence[Bars], width: float, classes: bool) -> Fill:
    frame_bars(axes, items[0], width - 0.6, bar_limits(items))
    if len(items[0].series) > 1:
        fill_bars(axes, items[0])
        axes.legend(frameon=False, fontsize=LABEL - 2)
        for bar in list(axes.patches):
            bar.remove()
    colours = [colour(i) for i in range(len(items[0].labels))] if classes else []
    return lambda item: fill_bars(axes, item, colours)


def gif(frames: Sequence[Array]) -> bytes:
    """Encode frames as a looping GIF; the last frame is shown longer than the others."""
    palette = _palette([frames[i] for i in evenly_spaced(len(frames), 4)])
    pages = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    times = [STEP] * (len(pages) - 1) + [LAST]
    buffer = io.BytesIO()
    pages[0].save(
        buffer, "GIF", save_all=True, append_images=pages[1:], duration=times, loop=0, optimize=True
    )
    return buffer.getvalue()


def _palette(frames: Sequence[Array]) -> Image.Image:
    """A palette image with white, black and the exact class colours, and the other colours of the
    frames. A median-cut palette alone would turn white into grey and shift the class colours."""
    names = ["#ffffff", "#000000", *CLASSES]
    exact = np.array([[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in names])
    median_cut = Image.fromarray(np.concatenate(frames)).quantize(COLOURS).getpalette() or []
    others = np.array(median_cut).reshape(-1, 3)
    near = np.abs(others[:, None] - exact).max(-1).min(1) < MIN_COLOUR_DISTANCE
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([exact, others[~near]]).ravel().tolist())
    return palette


def evenly_spaced(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spaced, including the first and the last."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]
