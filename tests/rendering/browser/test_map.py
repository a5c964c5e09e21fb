"""The interactive map in a browser: images shown by mouse, touch and keyboard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentforge.rendering.html.page import write_page

pytestmark = pytest.mark.slow
TIP = ".lf-tip canvas"
DECODED = ".lf-decoded canvas"

# Data coordinates to window coordinates, computed by plotly, and the reverse.
TO_WINDOW = """([x, y]) => {
  const plot = document.querySelector(".lf-plot"), around = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  return [around.left + xaxis._offset + xaxis.d2p(x), around.top + yaxis._offset + yaxis.d2p(y)];
}"""
TO_DATA = """([left, top]) => {
  const plot = document.querySelector(".lf-plot"), around = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  const x = left - around.left - xaxis._offset, y = top - around.top - yaxis._offset;
  return [xaxis.p2d(x), yaxis.p2d(y)];
}"""
PIXELS = """(canvas) => Array.from(
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)"""


@pytest.fixture(scope="module")
def file(a_map, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "map.html"
    write_page(a_map, path, "runs/ae, step-30")
    return path


def grey(page, selector):
    """Returns the 28 x 28 pixels of a canvas, which must be opaque and grey."""
    values = np.array(page.locator(selector).evaluate(PIXELS), np.uint8).reshape(28, 28, 4)
    assert (values[..., 3] == 255).all()
    assert (values[..., 0] == values[..., 1]).all()
    assert (values[..., 0] == values[..., 2]).all()
    return values[..., 0].astype(int)


def as_bytes(image):
    return (image[0].numpy() * 255).round().astype(int)


def point_at(page, place):
    left, top = page.evaluate(TO_WINDOW, [float(value) for value in place])
    page.mouse.move(left, top)
    return left, top


@pytest.fixture
def isolated(a_map):
    """Indices of the points, the most isolated first, so that no neighbour is hit instead."""
    points = a_map.points.numpy()
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(len(points)) * 1e9
    return np.argsort(-apart.min(0)).tolist()


def test_page_opens_from_disk_without_messages_or_requests(visit, file):
    opened = visit(file)
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {file.as_uri()}


def test_hovering_over_a_point_shows_its_image_and_class(visit, file, a_map, isolated):
    page = visit(file).page
    assert not page.locator(TIP).is_visible()
    for index in isolated[:12]:
        point_at(page, a_map.points[index])
        assert page.locator(TIP).is_visible()
        np.testing.assert_array_equal(grey(page, TIP), as_bytes(a_map.images[index]))
        said = page.locator(".lf-tip div").first.inner_text()
        assert said == a_map.classes[int(a_map.labels[index])]


def test_no_image_is_shown_far_from_all_points(visit, file, a_map, isolated):
    page = visit(file).page
    point_at(page, a_map.points[isolated[0]])
    assert page.locator(TIP).is_visible()
    box = page.locator(".nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 3)
    assert not page.locator(TIP).is_visible()


def test_hidden_class_shows_no_image_on_hover(visit, file, a_map, isolated):
    page = visit(file).page
    x, y = a_map.points.T  # not at the edge: hiding a class shrinks the axes
    middle = [((v > v.quantile(0.2)) & (v < v.quantile(0.8))) for v in (x, y)]
    index = next(i for i in isolated if middle[0][i] and middle[1][i])
    label = int(a_map.labels[index])
    switch = """([visible, i]) =>
      Plotly.restyle(document.querySelector(".lf-plot"), { visible }, [i])"""
    shown = {}
    for visible in ("legendonly", True):
        page.evaluate(switch, [visible, label])
        page.mouse.move(0, 0)
        point_at(page, a_map.points[index])
        wanted = as_bytes(a_map.images[index])
        shown[visible] = page.locator(TIP).is_visible() and (grey(page, TIP) == wanted).all()
    assert shown == {"legendonly": False, True: True}


def test_tap_shows_the_image(visit, file, a_map, isolated):
    opened = visit(file, phone=True)
    place = opened.page.evaluate(TO_WINDOW, a_map.points[isolated[0]].tolist())
    left, top = map(round, place)  # touch positions are whole pixels
    opened.page.touchscreen.tap(left, top)
    np.testing.assert_array_equal(grey(opened.page, TIP), as_bytes(a_map.images[isolated[0]]))
    x, _ = opened.page.evaluate(TO_DATA, [left, top])
    assert opened.page.locator(".lf-decoded figcaption").inner_text().startswith(f"z0 {x:.2f}")
    assert opened.complaints == []


def blend(plane, x, y):
    """Bilinear interpolation of the four knots around a position, by scipy."""
    from scipy.interpolate import RegularGridInterpolator

    rows, columns = plane.images.shape[:2]
    knots = np.linspace(*plane.y, rows), np.linspace(*plane.x, columns)
    values = (plane.images.numpy() * 255).round().reshape(rows, columns, -1)
    return RegularGridInterpolator(knots, values)([[y, x]]).reshape(28, 28)


def test_decoded_image_follows_the_pointer_over_the_plane(visit, file, a_map):
    page = visit(file).page
    (x0, x1), (y0, y1) = a_map.plane.x, a_map.plane.y
    seen = []
    for u, v in [(0.1, 0.2), (0.37, 0.9), (0.5, 0.55), (0.93, 0.41)]:
        left, top = point_at(page, (x0 + u * (x1 - x0), y0 + v * (y1 - y0)))
        x, y = page.evaluate(TO_DATA, [left, top])
        seen.append(grey(page, DECODED))
        assert np.abs(seen[-1] - blend(a_map.plane, x, y)).max() <= 2
        said = page.locator(".lf-decoded figcaption").inner_text()
        assert [float(word.strip(",")) for word in said.split()[1::2]] == pytest.approx(
            [x, y], abs=0.02
        )
    for i in range(len(seen)):
        for j in range(i):
            assert np.abs(seen[i] - seen[j]).max() > 10  # all of them differ


def test_arrow_keys_move_between_knots_and_show_their_images(visit, file, a_map):
    page = visit(file).page
    (x0, x1), (y0, y1) = a_map.plane.x, a_map.plane.y
    point_at(page, ((x0 + x1) / 2, (y0 + y1) / 2))
    page.locator(DECODED).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    np.testing.assert_array_equal(grey(page, DECODED), as_bytes(a_map.plane.images[3, 4]))
    for key, row, column in [("ArrowRight", 3, 5), ("ArrowUp", 4, 5), ("ArrowUp", 5, 5)]:
        page.keyboard.press(key)
        knot = a_map.plane.images[row, column]
        np.testing.assert_array_equal(grey(page, DECODED), as_bytes(knot))
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    np.testing.assert_array_equal(grey(page, DECODED), as_bytes(a_map.plane.images[5, 0]))


def test_caption_reports_a_pointer_outside_the_plane(visit, file, a_map):
    page = visit(file).page
    furthest = int(a_map.points[:, 0].argmax())
    assert a_map.points[furthest, 0] > a_map.plane.x[1]
    before = grey(page, DECODED)
    point_at(page, a_map.points[furthest])
    assert "outside" in page.locator(".lf-decoded figcaption").inner_text()
    np.testing.assert_array_equal(grey(page, DECODED), before)


def test_path_plays_from_start_to_end(visit, file, a_map):
    page = visit(file).page
    line = "() => document.querySelector('.lf-plot').data.filter(t => t.meta?.grows).at(-1).x"
    length = f"() => ({line})().length"
    assert page.evaluate(length) == 12
    slider = page.locator(".lf-film input")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"({length})() === 1")
    page.locator(".lf-film button").click()
    page.wait_for_function(f"({length})() === 12")
    page.wait_for_function("document.querySelector('.lf-film button').textContent === 'Play'")
    drawn = page.evaluate(line)
    np.testing.assert_allclose(drawn, a_map.paths["from 0 to 1"][:, 0].numpy(), rtol=1e-4)


def test_html_in_names_is_shown_as_text(visit, file, a_map):
    page = visit(file).page
    legend = page.locator(".legendtext").all_text_contents()
    assert set(a_map.classes) <= set(legend)
    assert page.evaluate("window.pwned") is None
    assert page.locator("figcaption").first.inner_text() == a_map.title


def test_chart_follows_the_colour_scheme(visit, file):
    page = visit(file).page
    brightness = {}
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        text = page.locator("body").evaluate("(body) => getComputedStyle(body).color")
        page.wait_for_function(
            "(now) => getComputedStyle(document.querySelector('.xtick text')).fill === now",
            arg=text,
        )
        parts = text.removeprefix("rgb(").rstrip(")").split(",")
        brightness[scheme] = sum(map(int, parts)) / 3
    assert brightness["light"] < 64
    assert brightness["dark"] > 192


def test_page_fits_the_width_of_a_phone(visit, file):
    page = visit(file, phone=True).page
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.fixture(scope="module")
def shaded(a_map):
    values = a_map.points[:, 0] * 10
    return replace(a_map, values=values, values_title="angle <b>in</b> degrees")


@pytest.fixture(scope="module")
def shaded_file(shaded, tmp_path_factory):
    path = tmp_path_factory.mktemp("shaded") / "map.html"
    write_page(shaded, path, "runs/ae, step-30")
    return path


def test_hovering_shows_the_class_and_the_value_of_a_point(visit, shaded_file, shaded, isolated):
    opened = visit(shaded_file)
    for index in isolated[:8]:
        point_at(opened.page, shaded.points[index])
        name, value, _ = opened.page.locator(".lf-tip div").all_inner_texts()
        assert name == shaded.classes[int(shaded.labels[index])]
        assert value.startswith(f"{shaded.values_title} ")
        number = float(value.removeprefix(f"{shaded.values_title} "))
        assert number == pytest.approx(float(shaded.values[index]), rel=1e-3)
    assert opened.complaints == []


@pytest.mark.parametrize("phone", [False, True])
def test_colour_bar_is_inside_the_chart_and_below_the_map(visit, shaded_file, shaded, phone):
    page = visit(shaded_file, phone=phone).page
    bar = page.locator(".infolayer .colorbar, .infolayer [class^=cb]").first.bounding_box()
    title = page.locator("[class*=cbtitle]").first
    assert title.text_content().strip() == shaded.values_title
    plot, axis = (page.locator(name).bounding_box() for name in (".lf-plot", ".xtitle"))
    assert plot["x"] <= bar["x"]
    assert bar["x"] + bar["width"] <= plot["x"] + plot["width"] + 1
    assert bar["y"] >= axis["y"] + axis["height"] - 1
    assert bar["y"] + bar["height"] <= plot["y"] + plot["height"] + 1
    assert title.bounding_box()["y"] >= bar["y"]


def test_text_of_the_colour_bar_follows_the_colour_scheme(visit, shaded_file):
    page = visit(shaded_file).page
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        text = page.locator("body").evaluate("(body) => getComputedStyle(body).color")
        page.wait_for_function(
            """(now) => {
              const texts = [...document.querySelectorAll("text[class*=cbtitle], .cbaxis text")];
              return texts.length > 2 && texts.every((t) => getComputedStyle(t).fill === now);
            }""",
            arg=text,
        )
