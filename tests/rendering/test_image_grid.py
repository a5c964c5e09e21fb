"""Image grids: positions, colours, text and margins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from latentforge.findings import ImageGrid
from latentforge.rendering.canvas import text_width, wrap
from latentforge.rendering.write import png


@pytest.fixture
def drawn(look):
    return lambda grid, note="a run, a checkpoint": look.opened(png(grid, note))


def test_every_image_is_drawn_in_its_cell_with_its_aspect(drawn):
    """Each uniform image of a known level is one solid block in the figure, and images twice as
    wide as high keep that aspect."""
    levels = torch.tensor([[50, 100, 150], [200, 75, 125]])
    rows = [row[:, None, None, None].expand(3, 1, 8, 16) / 255 for row in levels]
    picture = drawn(ImageGrid("g", "", rows), note="")
    for level in levels.flatten().tolist():
        ys, xs = np.nonzero((picture == level).all(-1))
        height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
        assert len(ys) == height * width  # one solid block
        assert width / height == pytest.approx(2, rel=0.03)
    firsts = [np.nonzero((picture == v).all(-1)) for v in levels[:, 0].tolist()]
    assert firsts[0][0].max() < firsts[1][0].min()
    assert firsts[0][1].min() == firsts[1][1].min()


def test_colour_and_grey_images_can_share_a_grid(drawn, look):
    red = torch.tensor([0.87, 0.0, 0.02])[None, :, None, None].expand(1, 3, 8, 8)
    picture = drawn(ImageGrid("g", "", [red, torch.full((1, 1, 8, 8), 0.5)]), note="")
    assert look.count(picture, "#de0005", 1) > 5000
    assert look.count(picture, "#808080", 1) > 5000


def test_values_outside_the_range_are_clipped_and_nan_is_black(drawn, look):
    x = torch.tensor([-1.0, 2.0, float("nan")])[:, None, None, None].expand(3, 1, 4, 4)
    picture = drawn(ImageGrid("g", "", [x, torch.full((3, 1, 4, 4), 0.5)]), note="")
    cell = look.count(picture, "#808080", 1) / 3
    assert look.count(picture, "#000000", 1) == pytest.approx(2 * cell, rel=0.02)


def test_heat_map_is_scaled_per_row(drawn, look):
    low = torch.tensor([0.0, 0.1, 0.2])[:, None, None, None].expand(3, 1, 4, 4)
    picture = drawn(ImageGrid("g", "", [low, low * 4], colours="heat"), note="")
    for at in (0.0, 0.5, 1.0):  # each occurs twice: once in each row
        r, g, b = (int(255 * v) for v in colormaps["viridis"](at)[:3])
        assert look.count(picture, f"#{r:02x}{g:02x}{b:02x}", 2) > 2 * 10000


@pytest.mark.parametrize("names", ["short", "a rather long name of a row, KL 3.21 nats"])
def test_text_does_not_reach_the_edge_of_the_figure(drawn, look, digits, names):
    rows = [digits.x[:2], digits.x[2:4]]
    title = "A title that is far wider than two small images, so that it takes several lines"
    note = "/a/folder/" + "with-a-name-without-any-space-" * 5 + "/run, step-00000001"
    captions = [["train 12345, d = 0.25"] * 2] * 2
    picture = drawn(ImageGrid("g", title, rows, ["an image", names], [names, "x"], captions), note)
    assert min(look.margins(picture)) >= 5


def test_manifold_is_one_sheet_without_gaps(drawn, digits):
    rows = list(digits.x[:441].unflatten(0, (21, 21)))
    picture = drawn(ImageGrid("manifold", "Manifold", rows), note="")
    assert picture.shape[1] <= 12 * 150
    sheet = picture[-1500:-40, 40:-40]  # this region contains only images
    ink = digits.x[:441].mean()
    assert sheet.mean() / 255 == pytest.approx(float(ink), abs=0.03)  # no white gap anywhere


def test_rows_may_have_different_lengths(drawn, digits):
    full = drawn(ImageGrid("g", "", [digits.x[:5], digits.x[5:10]]), note="")
    part = drawn(ImageGrid("g", "", [digits.x[:5], digits.x[5:7]]), note="")
    assert full.shape == part.shape
    half = full.shape[0] // 2
    assert np.array_equal(full[: half - 10], part[: half - 10])
    assert (part[half + 10 :, -300:] == 255).all()


def test_wrapped_lines_fit_the_width_and_keep_all_words():
    text = "one two three, and a-word-that-is-longer-than-the-line itself"
    lines = wrap(text, 10, 1.0).split("\n")
    assert max(text_width(line, 10) for line in lines) <= 1.0
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
