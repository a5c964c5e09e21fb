"""Films: static and changing parts of the frames, the GIF and the strip."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from latentforge.findings import Bars, Film, ImageGrid, Scatter
from latentforge.rendering.animation import (
    LAST,
    STEP,
    _draw_changes,
    _prepare_panels,
    draw_frames,
    evenly_spaced,
    gif,
)
from latentforge.rendering.filmstrip import create_sheet, create_strip
from latentforge.rendering.palette import COLOURS, colour

FRAMES = 12


@pytest.fixture(scope="module")
def walk(digits):
    """A latent walk on a map with decoded images and probabilities, as a guided search shows it."""
    path = torch.linspace(-3, 3, FRAMES)[:, None] * torch.tensor([1.0, 0.3])
    map_ = Scatter("m", "codes", digits.z[:, :2], digits.y, digits.classes)
    frames = []
    for t in range(FRAMES):
        share = t / (FRAMES - 1)
        chances = [(1 - share) / 9] * 10
        chances[3] = share
        frames.append([
            replace(map_, paths={"z": path[: t + 1]}),
            ImageGrid("x", "decoded", [(1 - share) * digits.x[:1] + share * digits.x[3:4]]),
            Bars("p", "classifier", digits.classes, {"p": chances}, "probability"),
        ])  # fmt: skip
    titles = [f"step {t}" for t in range(FRAMES)]
    return Film("guided", "Guided to class 3", frames, titles)


@pytest.fixture(scope="module")
def frames(walk):
    return draw_frames(walk, "a run, a checkpoint")


def mask(frame, name):
    """Mask of the pixels of a colour, opaque or at the opacity of map points, 0.7."""
    wanted = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])
    near = [np.abs(frame - c).max(-1) < 9 for c in (wanted, 255 + 0.7 * (wanted - 255.0))]
    return near[0] | near[1]


def changed_columns(one, other):
    return np.flatnonzero((one != other).any(-1).any(0))


def test_frames_share_size_and_static_parts(frames):
    assert len(frames) == FRAMES
    assert {frame.shape for frame in frames} == {frames[0].shape}
    still = np.all([frame == frames[0] for frame in frames], axis=0).all(-1)
    assert still.mean() > 0.75
    drawn = (frames[0] < 250).any(-1)
    assert (still & drawn).sum() > 5000  # the map, axes and titles, not only white


def test_all_three_panels_change_in_every_frame(frames):
    third = frames[0].shape[1] // 3
    for before, after in pairwise(frames):
        changed = changed_columns(before, after)
        assert {int(c) // third for c in changed} >= {0, 1, 2}


def test_every_frame_shows_all_classes_of_the_map(frames, look):
    left = [frame[:, : frame.shape[1] // 3] for frame in frames]
    for i in range(10):
        assert min(look.count(part, colour(i), 30) for part in left) > 10


def test_target_class_bar_grows_in_its_colour_on_a_fixed_scale(frames, look):
    right = [frame[:, -frame.shape[1] // 3 :] for frame in frames]
    areas = [look.count(part, colour(3), 3) for part in right]
    assert areas == sorted(areas)
    assert areas[-1] / areas[len(areas) // 2] == pytest.approx(11 / 6, rel=0.05)
    high = np.ptp(np.flatnonzero(mask(right[-1], colour(3)).any(1)))
    assert high > 0.5 * len(right[-1])  # the highest bar fills the panel


def test_axis_limits_include_the_paths_of_all_frames(digits):
    """The first frame already uses the limits that the last one needs."""
    far = [[Scatter("m", "codes", digits.z[:, :2], paths={"z": torch.full((2, 2), 50.0)})]]
    near = [[Scatter("m", "codes", digits.z[:, :2])]]
    both, alone = draw_frames(Film("f", "", near + far)), draw_frames(Film("f", "", near))
    wide = [np.ptp(np.flatnonzero(mask(frame, COLOURS[0]).any(0))) for frame in (both[0], alone[0])]
    assert wide[0] < wide[1] / 3  # the points are drawn smaller
    assert np.array_equal(mask(both[0], COLOURS[0]), mask(both[1], COLOURS[0]))


def test_each_frame_clears_the_previous_one(walk):
    there, away = walk.frames[0], walk.frames[-1]
    frames = draw_frames(Film("f", "", [there, away, there], ["first", "a longer title", "first"]))
    assert np.array_equal(frames[0], frames[2])
    assert not np.array_equal(frames[0], frames[1])


def markers(film, frame):
    """Returns the markers at the ends of paths in a frame, and the legend entries."""
    _, stage = _prepare_panels(film, "")
    _draw_changes(stage, film.frames[frame])
    axes = stage[0][0]
    drawn = [line.get_marker() for line in axes.lines if line.get_marker() not in ("None", None)]
    return drawn, [text.get_text() for text in axes.get_legend().get_texts()][-3:]


def test_end_marker_appears_only_in_the_last_frame(walk, digits):
    assert markers(walk, 0) == (["o"], ["start", "now", "end"])  # only the start point
    for frame in range(1, FRAMES - 1):
        assert markers(walk, frame)[0] == ["o", "s"]
    assert markers(walk, FRAMES - 1)[0] == ["o", "*"]
    path = torch.zeros(4, 2)
    shots = [[Scatter("m", "", digits.z[:50, :2] + s, paths={"z": path})] for s in (0, 1)]
    for frame in (0, 1):  # a constant path on a moving map
        assert markers(Film("f", "", shots), frame) == (["o", "*"], ["start", "end"])


def test_moving_points_are_redrawn(digits):
    shots = [
        [Scatter("m", "", digits.z[:50, :2] * s, digits.y[:50], digits.classes)] for s in (1, 2)
    ]
    first, second = draw_frames(Film("f", "", shots))
    assert (first != second).any(-1).sum() > 1000


def test_frames_share_the_scale_of_values(digits):
    points = digits.z[:50, :2]
    shots = [[Scatter("m", "", points, values=torch.full((50,), v))] for v in (0.0, 8.0)]
    low, high = draw_frames(Film("f", "", shots))
    (axes, _), *_ = _prepare_panels(Film("f", "", shots), "")[1]
    assert axes.figure.axes[1].get_ylim() == (0.0, 8.0)
    assert (low != high).any(-1).sum() > 500
    still = [[replace(shot[0], values=shots[0][0].values)] for shot in shots]
    first, second = draw_frames(Film("f", "", still))
    assert np.array_equal(first, second)


# ---------------------------------------------------------------- GIF


def test_gif_has_all_frames_with_durations_and_colours(frames, look):
    content = gif(frames)
    assert len(content) < 1_000_000
    with Image.open(io.BytesIO(content)) as film:
        assert (film.n_frames, film.size) == (FRAMES, frames[0].shape[1::-1])
        assert film.info["loop"] == 0
        times = []
        for i, frame in enumerate(frames):
            film.seek(i)
            times.append(film.info["duration"])
            shown = np.asarray(film.convert("RGB")).astype(int)
            assert np.abs(shown - frame).mean() < 2
            assert (shown[:3] == 255).all()  # white is white
    assert times == [STEP] * (FRAMES - 1) + [LAST]


def test_gif_of_one_frame_or_identical_frames_is_valid(frames):
    for some in (frames[:1], [frames[0]] * 3):
        with Image.open(io.BytesIO(gif(some))) as film:
            assert film.size == frames[0].shape[1::-1]


# ---------------------------------------------------------------- strips


def test_strip_shows_images_of_selected_frames_with_titles(walk):
    grid = create_strip(walk)
    chosen = evenly_spaced(FRAMES, 10)
    assert chosen[0] == 0
    assert chosen[-1] == FRAMES - 1
    assert len(set(chosen)) == 10
    assert list(grid.column_titles) == [f"step {t}" for t in chosen]
    images = torch.cat([walk.frames[t][1].rows[0] for t in chosen])
    assert len(grid.rows) == 1
    assert torch.equal(grid.rows[0], images)


def test_several_images_per_frame_become_rows_of_the_strip(digits):
    def shot(t):
        rows = [digits.x[t : t + 3], digits.x[t + 3 : t + 6]]
        captions = [[f"{t}: {i}" for i in range(k, k + 3)] for k in (0, 3)]
        return [ImageGrid("g", "", rows, "abc", ["up", "down"], captions)]

    grid = create_strip(Film("f", "", [shot(0), shot(1)]))
    assert len(grid.rows) == 6
    assert torch.equal(grid.rows[4], digits.x[[4, 5]])
    assert list(grid.row_titles) == ["up a", "up b", "up c", "down a", "down b", "down c"]
    assert [list(row) for row in grid.captions][4] == ["0: 4", "1: 4"]


def test_panel_title_is_above_the_column_titles(digits):
    grid = ImageGrid("g", "decoded", [digits.x[:3]], column_titles=("a", "a long\ntitle", "c"))
    figure, stage = _prepare_panels(Film("f", "A film", [[grid]]), "")
    _draw_changes(stage, [grid])
    figure.canvas.draw()
    [(axes, _)] = stage
    columns = [text.get_window_extent() for text in axes.texts]
    assert len(columns) == 3
    title = axes.title.get_window_extent()
    assert title.y0 > max(box.y1 for box in columns)
    assert title.y1 < figure.bbox.y1


def test_film_without_images_gives_a_sheet_of_whole_frames(digits):
    shots = [[Bars("b", "", ["a"], {"p": [h]}, "p")] for h in (0.1, 0.5, 1.0)]
    film = Film("f", "No images", shots)
    assert create_strip(film) is None
    frames = draw_frames(film)
    with Image.open(io.BytesIO(create_sheet(frames))) as page:
        pixels = np.asarray(page.convert("RGB"))
    height, width, _ = frames[0].shape
    assert pixels.shape == (2 * height, 2 * width, 3)
    assert np.array_equal(pixels[:height, width:], frames[1])
    assert np.array_equal(pixels[height:, :width], frames[2])
