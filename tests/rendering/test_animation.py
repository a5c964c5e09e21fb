"""Films: what stays is the same in every frame, what changes is drawn; the GIF and the strip."""

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
    """A walk over a map, the image and the probabilities on the way, as a search shows it."""
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


def like(frame, name):
    """Where a frame has a colour, full or as a point of a map has it, at an opacity of 0.7."""
    wanted = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])
    near = [np.abs(frame - c).max(-1) < 9 for c in (wanted, 255 + 0.7 * (wanted - 255.0))]
    return near[0] | near[1]


def columns_that_change(one, other):
    return np.flatnonzero((one != other).any(-1).any(0))


def test_frames_are_of_one_size_and_share_all_but_path_image_bars_and_titles(frames):
    assert len(frames) == FRAMES
    assert {frame.shape for frame in frames} == {frames[0].shape}
    still = np.all([frame == frames[0] for frame in frames], axis=0).all(-1)
    assert still.mean() > 0.75
    drawn = (frames[0] < 250).any(-1)
    assert (still & drawn).sum() > 5000  # the map, axes and titles, not white alone


def test_every_frame_differs_from_the_one_before_in_all_three_panels(frames):
    third = frames[0].shape[1] // 3
    for before, after in pairwise(frames):
        changed = columns_that_change(before, after)
        assert {int(c) // third for c in changed} >= {0, 1, 2}


def test_all_classes_of_the_map_are_in_every_frame(frames, look):
    left = [frame[:, : frame.shape[1] // 3] for frame in frames]
    for i in range(10):
        assert min(look.count(part, colour(i), 30) for part in left) > 10


def test_the_bar_of_the_class_grows_in_its_colour_on_one_scale(frames, look):
    right = [frame[:, -frame.shape[1] // 3 :] for frame in frames]
    areas = [look.count(part, colour(3), 3) for part in right]
    assert areas == sorted(areas)
    assert areas[-1] / areas[len(areas) // 2] == pytest.approx(11 / 6, rel=0.05)
    high = np.ptp(np.flatnonzero(like(right[-1], colour(3)).any(1)))
    assert high > 0.5 * len(right[-1])  # the highest of all fills the panel


def test_a_walk_outside_of_the_points_stays_inside_of_the_picture(digits):
    """The limits are those of all frames: the first one already has room for the last."""
    far = [[Scatter("m", "codes", digits.z[:, :2], paths={"z": torch.full((2, 2), 50.0)})]]
    near = [[Scatter("m", "codes", digits.z[:, :2])]]
    both, alone = draw_frames(Film("f", "", near + far)), draw_frames(Film("f", "", near))
    wide = [np.ptp(np.flatnonzero(like(frame, COLOURS[0]).any(0))) for frame in (both[0], alone[0])]
    assert wide[0] < wide[1] / 3  # the points take less room
    assert np.array_equal(like(both[0], COLOURS[0]), like(both[1], COLOURS[0]))


def test_nothing_of_a_frame_is_left_in_the_next(walk):
    there, away = walk.frames[0], walk.frames[-1]
    frames = draw_frames(Film("f", "", [there, away, there], ["first", "a longer title", "first"]))
    assert np.array_equal(frames[0], frames[2])
    assert not np.array_equal(frames[0], frames[1])


def markers(film, frame):
    """What marks the ends of the walks of a frame, and what the legend names."""
    _, stage = _prepare_panels(film, "")
    _draw_changes(stage, film.frames[frame])
    axes = stage[0][0]
    drawn = [line.get_marker() for line in axes.lines if line.get_marker() not in ("None", None)]
    return drawn, [text.get_text() for text in axes.get_legend().get_texts()][-3:]


def test_a_walk_has_ended_in_its_last_frame_alone_and_before_it_is_where_it_is_now(walk, digits):
    assert markers(walk, 0) == (["o"], ["start", "now", "end"])  # one place: the start
    for frame in range(1, FRAMES - 1):
        assert markers(walk, frame)[0] == ["o", "s"]
    assert markers(walk, FRAMES - 1)[0] == ["o", "*"]
    path = torch.zeros(4, 2)
    shots = [[Scatter("m", "", digits.z[:50, :2] + s, paths={"z": path})] for s in (0, 1)]
    for frame in (0, 1):  # one that stands still while the map moves
        assert markers(Film("f", "", shots), frame) == (["o", "*"], ["start", "end"])


def test_points_that_move_are_drawn_anew(digits):
    shots = [
        [Scatter("m", "", digits.z[:50, :2] * s, digits.y[:50], digits.classes)] for s in (1, 2)
    ]
    first, second = draw_frames(Film("f", "", shots))
    assert (first != second).any(-1).sum() > 1000


# ---------------------------------------------------------------- GIF


def test_the_gif_has_every_frame_its_times_and_its_colours(frames, look):
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


def test_a_film_of_one_frame_and_of_frames_alike_is_a_gif_too(frames):
    for some in (frames[:1], [frames[0]] * 3):
        with Image.open(io.BytesIO(gif(some))) as film:
            assert film.size == frames[0].shape[1::-1]


# ---------------------------------------------------------------- strips


def test_a_strip_shows_the_images_of_chosen_frames_with_their_titles(walk):
    grid = create_strip(walk)
    chosen = evenly_spaced(FRAMES, 10)
    assert chosen[0] == 0
    assert chosen[-1] == FRAMES - 1
    assert len(set(chosen)) == 10
    assert list(grid.column_titles) == [f"step {t}" for t in chosen]
    images = torch.cat([walk.frames[t][1].rows[0] for t in chosen])
    assert len(grid.rows) == 1
    assert torch.equal(grid.rows[0], images)


def test_several_images_a_frame_are_rows_of_the_strip(digits):
    def shot(t):
        rows = [digits.x[t : t + 3], digits.x[t + 3 : t + 6]]
        captions = [[f"{t}: {i}" for i in range(k, k + 3)] for k in (0, 3)]
        return [ImageGrid("g", "", rows, "abc", ["up", "down"], captions)]

    grid = create_strip(Film("f", "", [shot(0), shot(1)]))
    assert len(grid.rows) == 6
    assert torch.equal(grid.rows[4], digits.x[[4, 5]])
    assert list(grid.row_titles) == ["up a", "up b", "up c", "down a", "down b", "down c"]
    assert [list(row) for row in grid.captions][4] == ["0: 4", "1: 4"]


def test_the_title_of_a_panel_stands_over_those_of_its_columns(digits):
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


def test_frames_without_images_are_shown_whole(digits):
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
