"""Charts as HTML: sampling of large maps, sprite sizes, layout and escaping."""

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
    """Returns the JSON of a fragment's first chart."""
    [first, *_] = re.findall(r'<script type="application/json">(.*?)</script>', fragment)
    return json.loads(first)


def picture(source):
    kind, data = source.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def cell(sprite, index):
    """Returns the image at an index of a sprite, located as the page does it."""
    row, column = divmod(index, sprite["columns"])
    height, width = sprite["height"], sprite["width"]
    sheet = picture(sprite["src"])
    return sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]


def grey_map(count, classes=10):
    """A map whose images have their index as brightness, so that a wrong one is detected."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 2, generator=generator)
    images = torch.arange(count).remainder(256).div(255).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    labels = torch.arange(count) % classes
    return Scatter("map", "Map", points, labels, [str(i) for i in range(classes)], images)


def test_large_map_samples_5000_points_evenly_by_class():
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


def test_small_map_has_no_note_about_sampling():
    fragment = chart(grey_map(300))
    assert sum(len(trace["x"]) for trace in content(fragment)["figure"]["data"]) == 300
    assert "points are shown" not in fragment


def test_sampling_keeps_small_classes_and_is_deterministic():
    labels = np.repeat([0, 1, 2], [10, 1000, 5000])
    chosen = sample_evenly(labels, len(labels), 510)
    assert np.bincount(labels[chosen]).tolist() == [10, 250, 250]
    assert len(set(chosen.tolist())) == 510
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, sample_evenly(labels, len(labels), 510))


def test_thumbnails_stay_under_the_size_limit_with_fewer_points():
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


def test_large_images_are_shrunk_and_small_ones_are_exact():
    photos = torch.rand(20, 3, 200, 100)
    sprite = content(chart(Scatter("m", "m", torch.rand(20, 2), images=photos)))["thumbnails"]
    assert (sprite["height"], sprite["width"]) == (64, 32)
    digits = torch.rand(20, 1, 28, 28)
    sprite = content(chart(Scatter("m", "m", torch.rand(20, 2), images=digits)))["thumbnails"]
    wanted = (digits[13, 0] * 255).round().numpy()
    np.testing.assert_array_equal(cell(sprite, 13), wanted)


def test_plane_knots_are_stored_by_row_from_the_lowest_y():
    knots = torch.rand(5, 7, 1, 6, 6)
    plane = Plane(knots, (-1.0, 2.0), (0.0, 3.0))
    found = content(chart(Scatter("m", "m", torch.rand(20, 2), plane=plane)))["plane"]
    assert (found["rows"], found["columns"], found["x"], found["y"]) == (5, 7, [-1, 2], [0, 3])
    wanted = (knots[3, 2, 0] * 255).round().numpy()
    np.testing.assert_array_equal(cell(found, 3 * 7 + 2), wanted)


def test_long_paths_have_at_most_thirty_frames():
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


def test_path_names_are_placed_away_from_other_ends():
    ends = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 9.0]])
    left, right, above = choose_text_positions(ends)
    assert "left" in left
    assert "right" in right
    assert "top" in above
    assert choose_text_positions(ends[:1]) == ["top right"]
    assert len(choose_text_positions(np.zeros((3, 2)))) == 3  # all at one position


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([0.5, 0.9], (0, 0), (0.9, 1)), ([2.0, 4.0], (1.8, 2), (4, 4.2)), ([0, 0], (-1, 0), (0, 1))],
)
def test_axes_of_fractions_start_at_0_and_others_fit_the_values(values, low, high):
    item = Lines("l", "l", torch.arange(2.0), {"y": torch.tensor(values)}, "x", "y")
    bottom, top = content(chart(item))["figure"]["layout"]["yaxis"]["range"]
    assert low[0] <= bottom <= low[1]
    assert high[0] <= top <= high[1]
    assert bottom < top


def test_table_does_not_round_integers():
    fragment = chart(Table("t", "t", ["n", "x"], [[123456, 0.123456], [np.int64(98765432), 1e9]]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", fragment)
    assert cells == ["123456", "0.1235", "98765432", "1e+09"]


def test_json_text_cannot_close_its_script_element():
    axes = ("</script><script>alert(1)</script>", "<!-- & z1")
    fragment = chart(Scatter("m", "m", torch.rand(20, 2), axes=axes))
    assert fragment.count("<script") == fragment.count("</script>") == 1
    assert "<!--" not in fragment
    assert tuple(content(fragment)["axes"]) == axes


def test_non_finite_values_are_null_in_the_json():
    y = torch.tensor([1.0, float("nan"), float("inf")])
    found = content(chart(Lines("l", "l", torch.arange(3.0), {"y": y}, "x", "y")))
    assert found["figure"]["data"][0]["y"] == [1, None, None]
    found = content(chart(Bars("b", "b", ["0", "1"], {"p": [0.5, float("nan")]}, "p")))
    assert found["figure"]["data"][0]["y"] == [0.5, None]
    assert found["figure"]["layout"]["xaxis"]["type"] == "category"


def test_page_is_written_without_finite_values(tmp_path):
    empty = Histogram("h", "h", {"nothing": torch.full((4,), float("nan"))}, "x")
    write_page(empty, tmp_path / "page.html", "a note with </p><script>")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "a note with &lt;/p&gt;&lt;script&gt;" in text


def test_three_folders_have_two_columns_without_overlap():
    class Folder:
        blocks = tuple(Block(key, "", wide="w" in key) for key in ("a", "w1", "w2", "b", "c"))

    found = [part for _, parts in arrange_blocks([Folder(), Folder(), Folder()]) for part in parts]
    places = [(part.row, part.column) for part in found]
    assert len(set(places)) == len(places) == 15  # heading, a, w1, w2, b with c, three times
    wide = {part.row for part in found if part.wide}
    assert wide.isdisjoint(part.row for part in found if not part.wide)
    keys = [[block.key for block in p.blocks] for p in sorted(found, key=lambda p: p.row)]
    assert keys == [[]] * 3 + [["a"]] * 3 + [["w1"]] * 3 + [["w2"]] * 3 + [["b", "c"]] * 3
