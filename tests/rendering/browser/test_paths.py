"""Several paths on a map in a browser: colours, names and animation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from latentforge.rendering.html.page import write_page
from latentforge.rendering.palette import COLOURS

pytestmark = pytest.mark.slow
LINES = """() => document.querySelector(".lf-plot").data.filter((t) => t.meta && t.meta.grows)
  .map((t) => t.x.map((x, i) => [x, t.y[i]]))"""
STARS = """() => document.querySelector(".lf-plot").data.filter((t) => t.meta && t.meta.ends)
  .flatMap((t) => t.x.map((x, i) => [x, t.y[i]]))"""
RANGES = """() => ["xaxis", "yaxis"].map(
  (axis) => document.querySelector(".lf-plot")._fullLayout[axis].range)"""
STROKES = """(all) => all.map((line) => getComputedStyle(line).stroke)"""


@pytest.fixture(scope="module")
def item(a_map):
    """Paths of 3 to 40 steps that leave the range of the points; two have names of classes."""
    generator = torch.Generator().manual_seed(0)
    steps = {"7": 40, "by hand": 3, a_map.classes[8]: 25}
    paths = {
        name: a_map.points[i] + torch.randn(n, 2, generator=generator).cumsum(0)
        for i, (name, n) in enumerate(steps.items())
    }
    return replace(a_map, plane=None, paths=paths)


@pytest.fixture(scope="module")
def file(item, tmp_path_factory):
    path = tmp_path_factory.mktemp("paths") / "map.html"
    write_page(item, path, "runs/ae, step-30")
    return path


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


def test_paths_have_their_class_or_index_colour_and_an_outline(visit, file):
    opened = visit(file)
    strokes = opened.page.locator(".scatterlayer .js-line").evaluate_all(STROKES)
    text = opened.page.locator("body").evaluate("(body) => getComputedStyle(body).color")
    assert strokes[1::2] == [rgb(COLOURS[i]) for i in (7, 1, 8)]
    assert strokes[::2] == [text] * 3
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}
    assert opened.page.evaluate("window.pwned") is None


def test_outlines_and_names_are_light_on_a_dark_page(visit, file):
    page = visit(file).page
    page.emulate_media(color_scheme="dark")
    text = page.locator("body").evaluate("(body) => getComputedStyle(body).color")
    page.wait_for_function(
        "(now) => getComputedStyle(document.querySelector('.textpoint text')).fill === now",
        arg=text,
    )
    strokes = page.locator(".scatterlayer .js-line").evaluate_all(STROKES)
    page.emulate_media(color_scheme="light")
    assert strokes[::2] == [text] * 3
    assert strokes[1::2] == [rgb(COLOURS[i]) for i in (7, 1, 8)]


def test_names_are_next_to_the_end_marker_of_their_path(visit, file, item):
    page = visit(file).page
    names = page.locator(".textpoint text")
    shown = [name if len(name) <= 20 else f"{name[:19]}…" for name in item.paths]
    assert names.all_text_contents() == shown
    ends = np.array([path[-1].tolist() for path in item.paths.values()])
    np.testing.assert_allclose(page.evaluate(STARS), ends, rtol=1e-4)
    stars = page.locator(".trace").filter(has=names).locator(".points path").all()
    for star, name in zip(stars, names.all(), strict=True):
        a, b = star.bounding_box(), name.bounding_box()
        near = max(b["x"] - a["x"] - a["width"], a["x"] - b["x"] - b["width"], 0)
        assert near < 20
        assert abs(a["y"] + a["height"] / 2 - b["y"] - b["height"] / 2) < 40
    legend = page.locator(".legendtext").all_text_contents()
    assert legend[-2:] == ["start", "end"]


def test_points_are_paler_on_a_map_with_paths(visit, file, a_map, tmp_path_factory):
    plain = tmp_path_factory.mktemp("plain") / "map.html"
    write_page(replace(a_map, plane=None, paths={}), plain, "")
    opacity = "() => +getComputedStyle(document.querySelector('.scatterlayer .trace')).opacity"
    assert visit(file).page.evaluate(opacity) < 0.6 < visit(plain).page.evaluate(opacity)


def test_all_paths_are_animated_together(visit, file, item):
    page = visit(file).page
    wanted = [path.numpy() for path in item.paths.values()]
    slider, whole = page.locator(".lf-film input"), page.evaluate(RANGES)
    assert slider.get_attribute("max") == "29"
    assert slider.input_value() == "29"
    slider.focus()
    for key, part in (("Home", 0), ("End", 1), ("ArrowLeft", 28 / 29)):
        page.keyboard.press(key)
        counts = [1 + int(np.floor(part * (len(path) - 1) + 0.5)) for path in wanted]
        page.wait_for_function(f"(n) => ({LINES})()[0].length === n", arg=counts[0])
        lines, stars = page.evaluate(LINES), page.evaluate(STARS)
        for i, (path, count) in enumerate(zip(wanted, counts, strict=True)):
            np.testing.assert_allclose(lines[2 * i], path[:count], rtol=1e-4)  # its outline
            np.testing.assert_allclose(lines[2 * i + 1], path[:count], rtol=1e-4)
            np.testing.assert_allclose(stars[i], path[count - 1], rtol=1e-4)
        assert page.evaluate(RANGES) == whole  # the axes do not change
    page.keyboard.press("Home")
    page.locator(".lf-film button").click()
    assert page.locator(".lf-film button").inner_text() == "Pause"
    page.wait_for_function("document.querySelector('.lf-film button').textContent === 'Play'")
    page.wait_for_function(f"() => ({LINES})()[0].length === 40")
    assert [len(line) for line in page.evaluate(LINES)] == [40, 40, 3, 3, 25, 25]
