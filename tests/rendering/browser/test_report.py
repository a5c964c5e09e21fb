"""The report in a browser: no messages or requests, complete, responsive, and HTML escaped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from latentforge import Forge
from latentforge.findings import Bars, Film, Findings, Histogram, ImageGrid, Lines, Table
from latentforge.rendering.write import write_findings

pytestmark = pytest.mark.slow
NASTY = "<script>window.pwned=2</script>"
ABOUT = {"roles": {}, "checkpoint": "step-30", "weights": "as trained"}


def findings(a_map):
    """One finding of each kind, with HTML in the names."""
    grid = ImageGrid("grid", "Some digits", [a_map.images[:8]])
    bars = Bars("bars", f"Bars {NASTY}", [NASTY, "</script>"], {"p": [0.2, 0.8]}, "p")
    x = torch.arange(20.0)
    return Findings(
        [
            a_map,
            grid,
            bars,
            Film(
                "film", "A film", [[replace(grid, rows=[a_map.images[i : i + 1]])] for i in (1, 2)]
            ),
            Lines("lines", "Lines", x, {NASTY: x.sin(), "b": x.cos()}, "step", "value"),
            Histogram("panels", "Panels", {f"f{i}": a_map.points[:, 0] for i in range(7)}, "x"),
            Table("table", "Table", [f"column {i}" for i in range(30)], [[NASTY] * 30]),
        ],
        {"share": 0.25, NASTY: 1.5},
        f"a share {NASTY}",
        [f"a note {NASTY}"],
    )


def with_more_curves(file):
    """Adds curves: those beyond three are collapsed on the page."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["train"] |= {f"per_{n}": line["train"]["loss"] / n for n in (2, 3, 4)}
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(scope="module")
def runs(run, a_map, tmp_path_factory):
    """Two runs with findings of all kinds, a report of the first and one of both."""
    folder = tmp_path_factory.mktemp("reports")
    forge = Forge()
    for name in ("first", "second"):
        shutil.copytree(run.path, folder / name)
        with_more_curves(folder / name / "metrics.jsonl")
        explored = folder / name / "explore" / "everything"
        explored.mkdir(parents=True)
        about = {"explorer": "everything", "run": f"runs/{name}", **ABOUT}
        write_findings(findings(a_map), explored, {**about, "options": {"name": NASTY}})
    forge.open_run(folder / "first").report()
    forge.report(folder / "first", folder / "second", out=folder / "both.html")
    return folder


@pytest.fixture(params=["first/report.html", "both.html"])
def file(request, runs):
    return runs / request.param


def test_report_opens_without_messages_requests_or_injected_scripts(visit, file):
    opened = visit(file)
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}
    assert opened.page.evaluate("window.pwned") is None
    assert NASTY in opened.page.locator("main").inner_text()


def test_all_images_and_charts_are_drawn(visit, file):
    page = visit(file).page
    copies = 1 if file.name == "report.html" else 2
    assert page.locator("img.picture").count() == copies * 3  # the grid, the film and its strip
    broken = "(all) => all.filter(image => !image.complete || !image.naturalWidth).length"
    assert page.locator("img.picture").evaluate_all(broken) == 0
    assert page.locator("img.picture:not([alt])").count() == 0
    charts = page.locator(".lf-chart").count()
    assert charts >= copies * (1 + 1 + 1 + 7)
    assert page.locator(".lf-chart.lf-ready").count() == charts
    assert page.locator(".lf-chart .main-svg").count() >= charts
    links = page.locator("nav a").evaluate_all("(all) => all.map(a => a.getAttribute('href'))")
    assert {"#figures", "#curves", "#explorer-1", "#settings", "#commands"} <= set(links)
    assert all(page.locator(link).count() == 1 for link in links)


def test_charts_fit_the_width_after_expanding_or_resizing(visit, runs):
    page = visit(runs / "first" / "report.html").page
    page.locator("#curves details summary").click()
    fits = """() => [...document.querySelectorAll("#curves .lf-plot")].every((plot) =>
      Math.abs(plot.querySelector(".main-svg").clientWidth - plot.clientWidth) < 2)"""
    widths = []
    for width in (1200, 700, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(fits)
        widths.append(page.locator("#curves .lf-plot").first.bounding_box()["width"])
    assert widths[0] == widths[2] != widths[1]


def test_only_tables_scroll_sideways_on_a_phone(visit, runs):
    page = visit(runs / "both.html", phone=True).page
    page.locator("details").evaluate_all("(all) => all.forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = page.locator(".lf-scroll").filter(has_text="column 29").first
    assert wide.evaluate("(box) => box.scrollWidth > box.clientWidth")


def test_runs_are_side_by_side_on_a_screen_and_stacked_on_a_phone(visit, runs):
    boxes = {}
    for phone in (False, True):
        page = visit(runs / "both.html", phone=phone).page
        boxes[phone] = [entry.bounding_box() for entry in page.locator(".entry .lf-map").all()]
    (left, right), (above, below) = boxes[False], boxes[True]
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert above["x"] == below["x"]
    assert above["y"] + above["height"] <= below["y"]


def test_scrolling_and_collapsible_parts_are_keyboard_accessible(visit, runs):
    page = visit(runs / "first" / "report.html").page
    scrolling = page.locator(".lf-scroll, pre")
    assert scrolling.count() > 5
    assert scrolling.evaluate_all("(all) => all.every(one => one.tabIndex === 0)")
    summary = page.locator("#settings summary").first
    summary.focus()
    assert not page.locator("#settings details").first.evaluate("(one) => one.open")
    page.keyboard.press("Enter")
    assert page.locator("#settings details").first.evaluate("(one) => one.open")
