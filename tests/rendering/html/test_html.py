"""Charts as HTML: what is left out of large maps, and how small the sprites stay."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from latentforge.findings import Bars, Histogram, Lines, Plane, Scatter, Table
from latentforge.rendering.html.figures import sample_evenly
from latentforge.rendering.html.page import SPRITE_BYTES, chart, write_page
from latentforge.rendering.html.paths import choose_text_positions
from latentforge.rendering.report.explorations import Block, arrange_blocks


def content(fragment):
    """The JSON of a fragment's first chart."""
    [first, *_] = re.findall(r'<script type="application/json">(.*?)</script>', fragment)
    return json.loads(first)


def picture(source):
    kind, data = source.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def cell(sprite, index):
    """The image of a sprite at a place, found as the page finds it."""
    row, column = divmod(index, sprite["columns"])
    height, width = sprite["height"], sprite["width"]
    sheet = picture(sprite["src"])
    return sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]


def grey_map(count, classes=10):
    """Images whose brightness is their index, so that a wrong one is seen."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 2, generator=generator)
    images = torch.arange(count).remainder(256).div(255).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    labels = torch.arange(count) % classes
    return Scatter("map", "Map", points, labels, [str(i) for i in range(classes)], images)


def test_a_large_map_shows_5000_points_evenly_by_class_each_with_its_own_image():
    item = grey_map(12_000)
    fragment = chart(item)
    found = content(fragment)
    traces = found["figure"]["data"]
    assert [len(trace["x"]) for trace in traces] == [500] * 10
    assert "5,000 of 12,000 points" in fragment
    places = item.points.numpy()
    for label, trace in enumerate(traces):
        for at in (0, 250, 499):
            drawn = (trace["x"][at], trace["y"][at])
            index = np.linalg.norm(places - drawn, axis=1).argmin()
            assert int(item.labels[index]) == label
            assert (cell(found["thumbnails"], trace["customdata"][at]) == index % 256).all()


def test_a_map_that_fits_says_nothing_of_points_left_out():
    fragment = chart(grey_map(300))
    assert sum(len(trace["x"]) for trace in content(fragment)["figure"]["data"]) == 300
    assert "points are shown" not in fragment


def test_small_classes_are_shown_whole_and_the_choice_is_the_same_each_time():
    labels = np.repeat([0, 1, 2], [10, 1000, 5000])
    chosen = sample_evenly(labels, len(labels), 510)
    assert np.bincount(labels[chosen]).tolist() == [10, 250, 250]
    assert len(set(chosen.tolist())) == 510
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, sample_evenly(labels, len(labels), 510))


def test_thumbnails_stay_under_two_megabytes_by_showing_fewer_points():
    noise = torch.rand(
        5000, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    )  # incompressible
    fragment = chart(Scatter("map", "Map", torch.randn(5000, 2), images=noise))
    found = content(fragment)
    assert len(found["thumbnails"]["src"]) * 3 / 4 <= SPRITE_BYTES
    sheet = picture(found["thumbnails"]["src"])
    assert max(sheet.shape[:2]) <= 8192
    [trace] = found["figure"]["data"]
    assert 500 <= len(trace["x"]) < 5000
    assert f"{len(trace['x']):,} of 5,000 points" in fragment


def test_large_images_are_shrunk_and_small_ones_kept_to_the_pixel():
    photos = torch.rand(20, 3, 200, 100)
    sprite = content(chart(Scatter("m", "m", torch.rand(20, 2), images=photos)))["thumbnails"]
    assert (sprite["height"], sprite["width"]) == (64, 32)
    digits = torch.rand(20, 1, 28, 28)
    sprite = content(chart(Scatter("m", "m", torch.rand(20, 2), images=digits)))["thumbnails"]
    wanted = (digits[13, 0] * 255).round().numpy()
    np.testing.assert_array_equal(cell(sprite, 13), wanted)


def test_the_knots_of_a_plane_lie_row_by_row_the_lowest_y_first():
    knots = torch.rand(5, 7, 1, 6, 6)
    plane = Plane(knots, (-1.0, 2.0), (0.0, 3.0))
    found = content(chart(Scatter("m", "m", torch.rand(20, 2), plane=plane)))["plane"]
    assert (found["rows"], found["columns"], found["x"], found["y"]) == (5, 7, [-1, 2], [0, 3])
    wanted = (knots[3, 2, 0] * 255).round().numpy()
    np.testing.assert_array_equal(cell(found, 3 * 7 + 2), wanted)


def test_long_paths_make_thirty_frames_at_most_and_add_only_their_own_places():
    walk = torch.stack([torch.linspace(0, 1, 400), torch.zeros(400)], 1)
    for paths, frames in (
        ({"walk": walk}, 30),
        ({"a": walk, "b": walk[:7]}, 30),
        ({"a": walk[:7]}, 7),
    ):
        found = content(chart(Scatter("m", "m", torch.rand(20, 2), paths=paths)))
        assert found["frames"] == frames
        grown = [t for t in found["figure"]["data"] if t.get("meta", {}).get("grows")]
        assert [len(trace["x"]) for trace in grown] == [
            len(p) for p in paths.values() for _ in "ab"
        ]
    assert "frames" not in content(chart(Scatter("m", "m", torch.rand(20, 2))))
    single = Scatter("m", "m", torch.rand(20, 2), paths={"a": walk[:1], "none": walk[:0]})
    assert "frames" not in content(chart(single))


def test_names_stand_on_the_side_away_from_the_other_ends():
    ends = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 9.0]])
    left, right, above = choose_text_positions(ends)
    assert "left" in left
    assert "right" in right
    assert "top" in above
    assert choose_text_positions(ends[:1]) == ["top right"]
    assert len(choose_text_positions(np.zeros((3, 2)))) == 3  # all in one place


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([0.5, 0.9], (0, 0), (0.9, 1)), ([2.0, 4.0], (1.8, 2), (4, 4.2)), ([0, 0], (-1, 0), (0, 1))],
)
def test_shares_begin_at_0_and_other_curves_where_they_are(values, low, high):
    item = Lines("l", "l", torch.arange(2.0), {"y": torch.tensor(values)}, "x", "y")
    bottom, top = content(chart(item))["figure"]["layout"]["yaxis"]["range"]
    assert low[0] <= bottom <= low[1]
    assert high[0] <= top <= high[1]
    assert bottom < top


def test_a_table_writes_whole_numbers_whole():
    fragment = chart(Table("t", "t", ["n", "x"], [[123456, 0.123456], [np.int64(98765432), 1e9]]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", fragment)
    assert cells == ["123456", "0.1235", "98765432", "1e+09"]


def test_no_text_in_the_json_ends_its_script_element():
    axes = ("</script><script>alert(1)</script>", "<!-- & z1")
    fragment = chart(Scatter("m", "m", torch.rand(20, 2), axes=axes))
    assert fragment.count("<script") == fragment.count("</script>") == 1
    assert "<!--" not in fragment
    assert tuple(content(fragment)["axes"]) == axes


def test_a_gap_in_a_curve_and_a_bar_that_is_nan_are_null_in_the_json():
    y = torch.tensor([1.0, float("nan"), float("inf")])
    found = content(chart(Lines("l", "l", torch.arange(3.0), {"y": y}, "x", "y")))
    assert found["figure"]["data"][0]["y"] == [1, None, None]
    found = content(chart(Bars("b", "b", ["0", "1"], {"p": [0.5, float("nan")]}, "p")))
    assert found["figure"]["data"][0]["y"] == [0.5, None]
    assert found["figure"]["layout"]["xaxis"]["type"] == "category"


def test_values_of_which_none_is_finite_still_make_a_page(tmp_path):
    empty = Histogram("h", "h", {"nothing": torch.full((4,), float("nan"))}, "x")
    write_page(empty, tmp_path / "page.html", "a note with </p><script>")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "a note with &lt;/p&gt;&lt;script&gt;" in text


def test_three_folders_have_two_columns_and_no_two_parts_in_one_place():
    class Folder:
        blocks = tuple(Block(key, "", wide="w" in key) for key in ("a", "w1", "w2", "b", "c"))

    found = [part for _, parts in arrange_blocks([Folder(), Folder(), Folder()]) for part in parts]
    places = [(part.row, part.column) for part in found]
    assert len(set(places)) == len(places) == 15  # heading, a, w1, w2, b with c, three times
    wide = {part.row for part in found if part.wide}
    assert wide.isdisjoint(part.row for part in found if not part.wide)
    keys = [[block.key for block in p.blocks] for p in sorted(found, key=lambda p: p.row)]
    assert keys == [[]] * 3 + [["a"]] * 3 + [["w1"]] * 3 + [["w2"]] * 3 + [["b", "c"]] * 3
