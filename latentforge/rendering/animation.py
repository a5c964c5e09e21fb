"""Draws animations: frames of panels side by side, as a GIF.

What stays the same in all frames is drawn once, under what changes.
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

DPI = 110  # of a frame, whose inches are few: a page may show it at half its size
STEP, LAST = 120, 1500  # milliseconds that a frame stands; the last one is to be looked at
COLOURS = 128  # of a GIF, besides those that must be exact
NEAR = 9  # levels; Pillow does not tell closer colours apart when it looks up the nearest
TALL = 3.2  # inches of the panels with their titles
LEAST = 3.4  # inches across, for the titles
WORDS = 0.28  # inches of the line of a frame's title

Fill = Callable[[Any], None]  # draws into its axes what one frame has and another has not


def draw_frames(film: Film, note: str = "") -> list[Array]:
    """Every frame as uint8 (H, W, 3), all of one size and on the same axes."""
    figure, stage = _stage(film, note)
    words = figure.texts[-1]
    canvas: Any = figure.canvas
    last = _change(stage, film.frames[-1])
    canvas.draw()  # the layout leaves room for a frame's texts; from now on it stays
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
    """Draw what is a frame's own; the artists that this made, the lowest first."""
    made: list[Artist] = []
    for (axes, fill), panel in zip(stage, panels, strict=True):
        before = set(axes.get_children())
        fill(panel)
        axes.set_title(escape_dollars(panel.title), fontsize=LABEL + 1, color=INK, pad=_pad(panel))
        new = [artist for artist in axes.get_children() if artist not in before]
        made += sorted(new, key=lambda artist: artist.get_zorder())
    return made


def _pad(panel: Any) -> float:
    """The points between a panel and its title, which stands over the titles of columns."""
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
    """The figure with all that stays, its last text a frame's title; the axes of each panel and how
    they are filled."""
    panels = list(zip(*film.frames, strict=True))  # for each panel its frames
    maps = [shots[0] for shots in panels if isinstance(shots[0], Scatter)]
    named = [tuple(shots[0].labels) for shots in panels if isinstance(shots[0], Bars)]
    keyed = [tuple(m.classes) in named for m in maps]  # the bars say which colour is which class
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
    """The inches of a panel across; of a map with the names of its classes beside it."""
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
    """The inches of the panels down: as usual, less where there are flat images alone."""
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
    elif ends:  # under the title of the x axis
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
    """Whether the walks of a frame are as long as they become."""
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
    """A GIF that starts again after its last frame, which stands longer than the others."""
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
    """White, black and the colours of classes as they are, and others that occur, as an image that
    has these colours. A median of colours alone would make white grey, and blue another blue."""
    names = ["#ffffff", "#000000", *CLASSES]
    exact = np.array([[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in names])
    found = Image.fromarray(np.concatenate(frames)).quantize(COLOURS).getpalette() or []
    others = np.array(found).reshape(-1, 3)
    near = np.abs(others[:, None] - exact).max(-1).min(1) < NEAR
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([exact, others[~near]]).ravel().tolist())
    return palette


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
