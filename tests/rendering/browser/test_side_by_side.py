"""Two folders of one explorer in a browser: wide images stacked, the rest side by side."""

from __future__ import annotations

import shutil

import pytest
import torch

from latentforge import Forge
from latentforge.findings import Bars, Findings, ImageGrid, Lines
from latentforge.rendering.write import write_findings

pytestmark = pytest.mark.slow
ABOUT = {"explorer": "search", "run": "ae", "roles": {}, "checkpoint": "step-30", "weights": ""}
RANGES = """(all) => all.map((plot) => plot._fullLayout.yaxis.range)"""


@pytest.fixture(scope="module")
def file(run, a_map, tmp_path_factory):
    """The values in one folder are ten times those in the other."""
    copy = tmp_path_factory.mktemp("beside") / "ae"
    shutil.copytree(run.path, copy)
    x = torch.linspace(0, 1, 30)
    for name, most in (("search", 0.9), ("search-2", 0.09)):
        folder = copy / "explore" / name
        folder.mkdir(parents=True)
        found = [
            Lines("share", "Found", x, {"share": (0.1 + x) / 1.1 * most}, "step", "share"),
            Lines("error", "Error", x, {"error": 20 + 30 * most * x}, "step", "nats"),
            Bars("bars", "Bars", ["a", "b"], {"n": [3 * most, 50 * most]}, "images"),
            ImageGrid("wide", "A row", [a_map.images[:12]]),
            ImageGrid("narrow", "A square", [a_map.images[i : i + 4] for i in (0, 4, 8, 12)]),
        ]
        options = {"most": most, "why": "a long reason " * int(1 / most)}
        write_findings(Findings(found, {"n": most}), folder, {**ABOUT, "options": options})
    return Forge().open_run(copy).report()


def boxes(page, title):
    return [one.bounding_box() for one in page.locator(f"img[alt='{title}']").all()]


def test_page_has_no_console_messages_or_requests(visit, file):
    opened = visit(file)
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}


def test_wide_images_have_full_width_below_their_folder_name(visit, file):
    page = visit(file).page
    first, second = boxes(page, "A row")
    assert first["x"] == second["x"]
    assert first["y"] + first["height"] <= second["y"]
    assert first["width"] == second["width"] > 700
    for box, name in ((first, "search"), (second, "search-2")):
        heading = page.locator("figcaption").get_by_text(name, exact=True).first.bounding_box()
        assert 0 < box["y"] - heading["y"] - heading["height"] < 60


def test_narrow_images_and_charts_are_side_by_side(visit, file):
    page = visit(file).page
    charts = [one.bounding_box() for one in page.locator(".entries .lf-plot").all()]
    for left, right in (boxes(page, "A square"), *zip(charts[:3], charts[3:], strict=True)):
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] <= right["x"]


def test_charts_of_one_finding_share_a_scale_and_fractions_start_at_0(visit, file):
    ranges = visit(file).page.locator(".entries .lf-plot").evaluate_all(RANGES)
    share, error, bars = ranges[:3]
    assert ranges[3:] == [share, error, bars]
    assert share[0] == bars[0] == 0
    assert 0.9 < share[1] < 1
    assert 45 < bars[1] < 50
    assert 15 < error[0] < 20
    assert 47 < error[1] < 50


def test_folders_are_stacked_on_a_phone(visit, file):
    page = visit(file, phone=True).page
    wide, narrow = boxes(page, "A row"), boxes(page, "A square")
    commands = [one.bounding_box() for one in page.locator(".entry .command").all()]
    order = [commands[0], wide[0], narrow[0], commands[1], wide[1], narrow[1]]
    assert [box["y"] for box in order] == sorted(box["y"] for box in order)
    assert page.locator("span.again:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
