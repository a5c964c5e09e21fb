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
from latentforge.rendering.canvas import LABEL, LEGEND, charts, escape_dollars, height, text_width
from latentforge.rendering.charts import bar_limits, fill_bars, frame_bars
from latentforge.rendering.image_grid import fill_grid, layout_of, titles_of
from latentforge.rendering.images import Array
from latentforge.rendering.palette import COLOURS as CLASSES
from latentforge.rendering.palette import INK, colour
from latentforge.rendering.scatter import (
    class_legend,
    ends_legend,
    fill_map,
    fill_paths,
    frame_map,
    limits_of,
    tallness,
)

DPI = 110  # a frame is small in inches; a page may show it at half its size
STEP, LAST = 120, 1500  # milliseconds per frame; the last one is shown longer
COLOURS = 128  # palette entries of a GIF, besides the exact colours
NEAR = 9  # levels; Pillow's nearest-colour lookup does not distinguish closer colours
TALL = 3.2  # height of the panels with their titles, inches
LEAST = 3.4  # minimum width, for the titles, inches
WORDS = 0.28  # height of the line with a frame's title, inches

Fill = Callable[[Any], None]  # draws the parts of a panel that change from frame to frame


def draw_frames(film: Film, note: str = "") -> list[Array]:
    """Draw every frame as uint8 (H, W, 3), all of the same size and with the same axes."""
    figure, stage = _stage(film, note)
    words = figure.texts[-1]
    canvas: Any = figure.canvas
    last = _change(stage, film.frames[-1])
    canvas.draw()  # computes the layout with a frame's texts; it is fixed from here on
    figure.set_layout_engine("none")
    _take_away(last, stage)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for i, panels in enumerate(film.frames):
        canvas.restore_region(background)
        words.set_text(escape_dollars(film.frame_titles[i]) if i < len(film.frame_titles) else "")
        drawn = _change(stage, panels)
        for artist in [words, *drawn, *(axes.title for axes, _ in stage)]:
            figure.draw_artist(artist)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        _take_away(drawn, stage)
    return frames


def _change(stage: list[tuple[Axes, Fill]], panels: Sequence[Any]) -> list[Artist]:
    """Draw the changing parts of a frame. Returns the new artists, the lowest z-order first."""
    made: list[Artist] = []
    for (axes, fill), panel in zip(stage, panels, strict=True):
        before = set(axes.get_children())
        fill(panel)
        axes.set_title(escape_dollars(panel.title), fontsize=LABEL + 1, color=INK, pad=_pad(panel))
        new = [artist for artist in axes.get_children() if artist not in before]
        made += sorted(new, key=lambda artist: artist.get_zorder())
    return made


def _pad(panel: Any) -> float:
    """The distance in points from a panel to its title, which is above the column titles."""
    if not isinstance(panel, ImageGrid) or not any(panel.column_titles):
        return 5.0
    place = layout_of(panel)
    return 9.0 + 72 * max(height(text, place.size) for text in titles_of(panel, place))


def _take_away(artists: Sequence[Artist], stage: list[tuple[Axes, Fill]]) -> None:
    for artist in artists:
        artist.remove()
    for axes, _ in stage:
        axes.set_title("")


# ---------------------------------------------------------------- panels


def _stage(film: Film, note: str) -> tuple[Figure, list[tuple[Axes, Fill]]]:
    """Draw the parts that all frames share. Returns the figure, whose last text is the frame title,
    and the axes and the fill function of each panel."""
    panels = list(zip(*film.frames, strict=True))  # the frames of each panel
    maps = [shots[0] for shots in panels if isinstance(shots[0], Scatter)]
    named = [tuple(shots[0].labels) for shots in panels if isinstance(shots[0], Bars)]
    keyed = [tuple(m.classes) in named for m in maps]  # the bars serve as the legend
    widths = [_width(shots, not all(keyed)) for shots in panels]
    wide = max(sum(widths) + 0.3, LEAST)
    figure = charts(wide, _tall(panels, widths) + WORDS, film.title, note)
    figure.set_dpi(DPI)
    engine: Any = figure.get_layout_engine()
    left, bottom, across, tall = engine.get()["rect"]
    words = WORDS / figure.get_figheight()
    engine.set(rect=(left, bottom, across, tall - words), wspace=0.06)
    row = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0].tolist()
    stage: list[tuple[Axes, Fill]] = []
    for axes, shots, width in zip(row, panels, widths, strict=True):
        match shots[0]:
            case Scatter():
                stage.append((axes, _map_panel(axes, cast(Any, shots), not all(keyed))))
            case Bars() as bars:
                classes = any(tuple(m.classes) == tuple(bars.labels) for m in maps)
                stage.append((axes, _bars_panel(axes, cast(Any, shots), width, classes)))
            case ImageGrid():
                stage.append((axes, partial(fill_grid, axes)))
    figure.text(0.5, bottom + tall, "", ha="center", va="top", fontsize=LABEL + 1, color=INK)
    return figure, stage


def _width(shots: Sequence[Any], legend: bool) -> float:
    """The width of a panel in inches; for a map including its legend."""
    match shots[0]:
        case Scatter() as item:
            ratio = tallness(limits_of(shots))
            names = item.classes if legend else ()
            beside = max((text_width(name, LABEL - 1) + 0.3 for name in names), default=0.0)
            return (TALL - 0.8) * min(1.6, 1 / ratio) + 0.6 + beside
        case Bars() as item:
            return min(max(2.3, 0.8 + 0.22 * len(item.labels) * len(item.series)), 4.2)
        case grid:
            place = layout_of(grid)
            return min(max(1.4, 1.8 * place.width / place.height(len(grid.rows))), 4.2)


def _tall(panels: Sequence[Sequence[Any]], widths: Sequence[float]) -> float:
    """The height of the panels in inches: TALL, or less if all panels are flat images."""
    tall = 0.0
    for shots, width in zip(panels, widths, strict=True):
        if not isinstance(shots[0], ImageGrid):
            return TALL
        place = layout_of(shots[0])
        tall = max(tall, 0.5 + width * place.height(len(shots[0].rows)) / place.width)
    return min(TALL, tall)


def _map_panel(axes: Axes, shots: Sequence[Scatter], legend: bool) -> Fill:
    limits, first = limits_of(shots), shots[0]
    frame_map(axes, first, limits)
    ends: list[Artist] = []
    if any(item.paths for item in shots):
        ends = ends_legend(growing=not all(ended(item, shots) for item in shots))
    handles = [*class_legend(first), *ends]
    if legend and handles:
        axes.legend(handles=handles, **{**LEGEND, "fontsize": LABEL - 2})
    elif ends:  # below the x-axis title
        where = {**LEGEND, "loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
        axes.legend(handles=ends, ncols=len(ends), columnspacing=1.2, **where)
    still = all(same_points(first, item) for item in shots[1:])
    if still:
        fill_map(axes, first, limits, TALL - 0.8)

    def fill(item: Scatter) -> None:
        if not still:
            fill_map(axes, item, limits, TALL - 0.8)
        fill_paths(axes, item, ended(item, shots), TALL - 0.8)

    return fill


def ended(item: Scatter, shots: Sequence[Scatter]) -> bool:
    """Whether the paths of a frame have their final lengths."""
    lengths = [[len(path) for path in shot.paths.values()] for shot in (item, shots[-1])]
    return lengths[0] == lengths[1]


def same_points(one: Scatter, other: Scatter) -> bool:
    """Whether two maps show the same points in the same colours."""
    pairs = ((one.points, other.points), (one.labels, other.labels))
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def _bars_panel(axes: Axes, shots: Sequence[Bars], width: float, classes: bool) -> Fill:
    frame_bars(axes, shots[0], width - 0.6, bar_limits(shots))
    if len(shots[0].series) > 1:
        fill_bars(axes, shots[0])
        axes.legend(frameon=False, fontsize=LABEL - 2)
        for bar in list(axes.patches):
            bar.remove()
    colours = [colour(i) for i in range(len(shots[0].labels))] if classes else []
    return lambda item: fill_bars(axes, item, colours)


# ---------------------------------------------------------------- files


def gif(frames: Sequence[Array]) -> bytes:
    """Encode frames as a looping GIF; the last frame is shown longer than the others."""
    palette = _palette([frames[i] for i in evenly_spaced(len(frames), 4)])
    pages = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
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
    found = Image.fromarray(np.concatenate(frames)).quantize(COLOURS).getpalette() or []
    others = np.array(found).reshape(-1, 3)
    near = np.abs(others[:, None] - exact).max(-1).min(1) < NEAR
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([exact, others[~near]]).ravel().tolist())
    return palette


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spaced, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
