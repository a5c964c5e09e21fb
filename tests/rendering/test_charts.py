"""Maps, curves, bars and histograms: drawn values, class colours, labels and margins."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from latentforge.findings import Bars, Histogram, Lines, Scatter
from latentforge.rendering.charts import draw_bars, draw_histogram, draw_lines
from latentforge.rendering.html.page import chart
from latentforge.rendering.palette import COLOURS, SCALE, colour
from latentforge.rendering.scatter import compute_limits, draw_scatter, place_names
from latentforge.rendering.write import png, write_finding

from ..params import slow_except

NAN = float("nan")


@pytest.fixture
def scatter(digits):
    path = torch.linspace(-2, 2, 9)[:, None] * torch.tensor([1.0, 0.5])
    return Scatter("map", "A map", digits.z[:, :2], digits.y, digits.classes, paths={"a": path})


# ---------------------------------------------------------------- maps


def test_every_class_of_a_map_is_drawn_in_its_colour(scatter, look):
    picture = look.opened(png(scatter, ""))
    assert min(look.count(picture, colour(i)) for i in range(10)) > 100
    alone = Scatter("map", "A map", scatter.points, scatter.labels * 0, scatter.classes)
    other = look.opened(png(alone, ""))
    assert max(look.count(other, colour(i)) for i in range(1, 10)) < 20


def test_class_label_is_at_the_densest_point_of_its_class():
    """A class in two groups has its median, and its mean, near another class between them."""
    random = np.random.default_rng(0)
    left, right = (random.normal((x, 0), size=(n, 2)) for n, x in ((80, -20), (70, 20)))
    points = np.concatenate([left, right, random.normal(size=(90, 2))])
    labels = np.repeat([0, 0, 1], [80, 70, 90])
    found = dict(place_names(points, labels, ["split", "other"], 11, 1.0))
    assert np.hypot(*np.subtract(found["split"], (-20, 0))) < 0.7
    assert np.hypot(*found["other"]) < 0.7
    assert tuple(found["split"]) in {tuple(point) for point in points}  # a member of the class
    many = np.concatenate([left] * 40 + [right] * 40)
    found = dict(place_names(many, np.zeros(len(many), int), ["one"], 11, np.array([1.0, 1.0])))
    assert np.hypot(*np.subtract(found["one"], (-20, 0))) < 1.2


def test_class_label_of_equal_points_is_at_these(digits):
    labels = digits.y.numpy()
    points = np.stack([labels * 5.0, labels * -3.0], 1) + np.array([[0.1, 0.2]])
    found = dict(place_names(points, labels, digits.classes, 11, 0.5))
    assert set(found) == set(digits.classes)
    assert found["4"] == pytest.approx((20.1, -11.8))


def test_overlapping_class_labels_are_moved_apart():
    points, labels = np.zeros((40, 2)), np.arange(40) % 4
    at = np.array(
        [p for _, p in place_names(points, labels, ["one", "two", "three", "four"], 10, 1.0)]
    )
    apart = np.abs(at[:, None] - at) + np.eye(4)[..., None] * 9
    assert (apart.max(-1) > 10 / 72).all()  # inches: the font size
    assert np.abs(at).max() < 1.5


def test_axes_of_very_different_ranges_have_independent_scales():
    x = torch.linspace(1, 4.5, 50)
    for far, shared in ((0.09, False), (2.0, True)):
        item = Scatter(
            "map", "A map", torch.stack([x, 0.13 + far * torch.linspace(0, 1, 50) ** 2], 1)
        )
        axes = draw_scatter(item).axes[0]
        assert (axes.get_aspect() == 1) is shared
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        assert x0 < 1 < 4.5 < x1
        assert y0 < 0.13
        if not shared:
            assert y1 - y0 < 1.1 * far
        [content] = re.findall(r'json">(.*?)</script>', chart(item))
        layout = json.loads(content)["figure"]["layout"]
        assert (layout["yaxis"].get("scaleanchor") == "x") is shared


def test_map_has_equal_scales_and_includes_every_point(scatter):
    figure = draw_scatter(scatter)
    figure.canvas.draw()
    axes = figure.axes[0]
    unit = axes.transData.transform([(0, 0), (1, 0), (0, 1)])
    assert unit[1, 0] - unit[0, 0] == pytest.approx(unit[2, 1] - unit[0, 1], rel=1e-3)
    both = torch.cat([scatter.points, scatter.paths["a"]])
    for (low, high), values in zip((axes.get_xlim(), axes.get_ylim()), both.T, strict=True):
        assert low < values.min()
        assert values.max() < high


def test_limits_ignore_non_finite_points_and_are_never_empty():
    same = Scatter("m", "", torch.ones(3, 2))
    (x0, x1), (y0, y1) = compute_limits([same])
    assert x0 < 1 < x1
    assert y0 < 1 < y1
    holes = Scatter("m", "", torch.tensor([[0.0, 0.0], [NAN, 9.0], [4.0, math.inf], [2.0, 2.0]]))
    assert compute_limits([holes]) == compute_limits([Scatter("m", "", holes.points[[0, 3]])])
    nothing = Scatter("m", "", torch.full((2, 2), NAN))
    assert compute_limits([nothing]) == ((-1.0, 1.0), (-1.0, 1.0))


def test_path_is_drawn_with_start_and_end_markers(scatter):
    lines = draw_scatter(scatter).axes[0].lines
    whole, start, end = (line.get_xydata() for line in lines)
    path = scatter.paths["a"].numpy()
    assert np.array_equal(whole, path)
    assert np.array_equal(start, path[:1])
    assert np.array_equal(end, path[-1:])
    assert [line.get_marker() for line in lines[1:]] == ["o", "*"]


def test_paths_are_named_and_use_their_class_colour(scatter):
    path = scatter.paths["a"]
    item = replace(scatter, paths={"first": path, "7": path + 1})
    axes = draw_scatter(item).axes[0]
    assert [to_hex(line.get_color()) for line in axes.lines[::3]] == [colour(0), colour(7)]
    assert [text.get_text() for text in axes.texts[-2:]] == ["first", "7"]


def test_path_labels_are_inside_the_map_and_do_not_overlap(scatter):
    ends = [[3.9, 0.0], [3.9, 0.1], [-3.9, 9.0], [-3.9, 9.1], [0.0, 0.0], [0.0, 0.05], [0.1, 0.0]]
    paths = {
        f"image {i} (class {i})": torch.tensor([[0.0, 0.0], end]) for i, end in enumerate(ends)
    }
    figure = draw_scatter(replace(scatter, paths=paths))
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [text.get_bbox_patch().get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == list(paths)
    inside = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
    rims = [to_hex(text.get_bbox_patch().get_edgecolor()) for text in axes.texts]
    assert rims == [colour(i) for i in range(7)]


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_point_size_shrinks_with_the_number_of_points(count, look, digits):
    few = Scatter("m", "", digits.z[:, :2].repeat(10_000 // len(digits.z) + 1, 1)[:count])
    inches = look.opened(png(few, "")).shape
    assert min(inches[:2]) > 400
    size = draw_scatter(few).axes[0].collections[0].get_sizes()[0]
    assert size == {1: 36, 100: 36, 10_000: pytest.approx(4.2)}[count]


def test_special_characters_and_unnamed_labels_are_drawn(digits, tmp_path):
    item = Scatter("m", "$x_1", digits.z[:, :2], digits.y, ("$a", "$\\frac{", "数字\t"))
    assert write_finding(item, tmp_path, "costs 3$ or 4$")[0].read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def shaded(digits):
    """A map that is coloured by its first coordinate."""
    points = digits.z[:, :2]
    by_value = {"values": points[:, 0] * 10, "values_title": "angle in $degrees"}
    return Scatter("map", "A map", points, digits.y, digits.classes, **by_value)


def test_values_of_a_map_are_drawn_on_a_continuous_scale_with_a_colour_bar(shaded, look):
    figure = draw_scatter(shaded)
    axes, bar = figure.axes
    values = shaded.values.double().numpy()
    assert bar.get_ylabel() == r"angle in \$degrees"
    assert bar.get_ylim() == pytest.approx((values.min(), values.max()))
    assert axes.get_legend() is None
    assert not axes.texts
    [drawn] = axes.collections
    assert np.allclose(drawn.get_array(), values)
    picture = look.opened(png(shaded, ""))
    assert max(look.count(picture, colour(i)) for i in range(10)) < 20  # no colours of classes
    ends = [look.count(picture, end) for end in (SCALE[0], SCALE[-1])]
    assert min(ends) > 20  # of the bar


def test_colour_bar_and_the_legend_of_paths_do_not_overlap(shaded, scatter):
    figure = draw_scatter(replace(shaded, paths=scatter.paths))
    figure.canvas.draw()
    axes, bar = figure.axes
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(bar.get_tightbbox())
    assert not legend.overlaps(axes.xaxis.label.get_window_extent())


def test_page_has_the_scale_and_the_colour_bar_of_the_picture(shaded):
    [text] = re.findall(r'json">(.*?)</script>', chart(shaded))
    content = json.loads(text)
    assert content["values"] == "angle in $degrees"
    [trace] = content["figure"]["data"]
    marker = trace["marker"]
    values = shaded.values.numpy()
    assert marker["color"] == pytest.approx(values.tolist(), rel=1e-4)
    assert (marker["cmin"], marker["cmax"]) == pytest.approx((values.min(), values.max()))
    assert [fill for _, fill in marker["colorscale"]] == list(SCALE)
    assert marker["colorbar"]["title"]["text"] == "angle in $degrees"
    assert trace["text"] == [shaded.classes[i] for i in shaded.labels]
    assert content["figure"]["layout"]["showlegend"] is False


# ---------------------------------------------------------------- curves and bars


def test_curves_have_gaps_at_non_finite_values():
    y = torch.tensor([1.0, NAN, math.inf, 2.0, 3.0])
    item = Lines("l", "", torch.arange(5), {"a": y, "b": y * 0}, "epoch", "nats")
    axes = draw_lines(item).axes[0]
    first = axes.lines[0].get_ydata()
    assert np.isnan(first).tolist() == [False, True, True, False, False]
    assert axes.get_ylim()[1] < 4
    assert [line.get_color() for line in axes.lines] == list(COLOURS[:2])
    assert len({line.get_linestyle() for line in axes.lines}) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats")
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_bars_have_the_height_of_their_values_and_do_not_overlap():
    item = Bars("b", "", ["x", "y"], {"one": [0.5, -0.25], "two": [1.0, NAN]}, "p")
    axes = draw_bars(item).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.5, -0.25, 1.0, 0.0]
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert spans[0][1] <= spans[2][0]  # the same label
    assert spans[2][1] < spans[1][0]  # neighbouring labels
    low, high = axes.get_ylim()
    assert low < -0.25
    assert high > 1
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches[::2]] == list(COLOURS[:2])


def test_long_labels_are_rotated_and_not_cut_off(look):
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
    item = Bars("b", "Fashion", names, {"p": [0.1] * 8}, "probability")
    axes = draw_bars(item).axes[0]
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {45.0}
    assert min(look.margins(look.opened(png(item, "note")))) >= 5


# ---------------------------------------------------------------- histograms


def test_histogram_is_a_density_with_the_fitted_normal():
    torch.manual_seed(0)
    values = torch.randn(4000) * 3 + 5
    item = Histogram("h", "", {"a": values, "b": values * 2}, "activation", normal=True)
    panels = draw_histogram(item).axes
    assert len(panels) == 2
    area = sum(bar.get_width() * bar.get_height() for bar in panels[0].patches)
    assert area == pytest.approx(1)
    x, density = panels[0].lines[0].get_data()
    assert x[density.argmax()] == pytest.approx(float(values.mean()), abs=0.1)
    deviation = float(values.double().std(unbiased=False))
    assert density.max() == pytest.approx(1 / (deviation * math.sqrt(2 * math.pi)), rel=1e-3)
    assert panels[1].get_title() == "b"


def test_histogram_page_and_image_match_numpy():
    torch.manual_seed(0)
    values = {"few": torch.randn(50), "many": 3 * torch.randn(3000), "same": torch.ones(4)}
    values["few"][7] = math.inf
    item = Histogram("h", "", values, "x", normal=True)
    panels = re.findall(r'json">(.*?)</script>', chart(item))
    drawn = draw_histogram(item).axes
    for fragment, axes, kept, count in zip(
        panels[:2],
        drawn[:2],
        (values["few"][values["few"].isfinite()], values["many"]),
        (10, 40),
        strict=True,
    ):
        figure = json.loads(fragment)["figure"]
        bars, curve = figure["data"]
        density, edges = np.histogram(kept.double().numpy(), count, density=True)
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], density)
        np.testing.assert_allclose(bars["y"], density, rtol=1e-4)
        middle = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
        np.testing.assert_allclose(middle, (edges[1:] + edges[:-1]) / 2)
        np.testing.assert_allclose(bars["x"], middle, rtol=2e-4)
        np.testing.assert_allclose(figure["layout"]["xaxis"]["range"], drawn[0].get_xlim())
        np.testing.assert_allclose(axes.get_xlim(), drawn[0].get_xlim())
        assert sum(bars["y"]) * bars["width"] == pytest.approx(1, rel=1e-3)
        x, y = axes.lines[0].get_data()
        np.testing.assert_allclose(np.interp(curve["x"], x, y), curve["y"], atol=2e-3)
    same = json.loads(panels[2])["figure"]
    assert same["data"] == []
    assert same["layout"]["annotations"][0]["text"] == drawn[2].texts[0].get_text() == "all 1"


@pytest.mark.parametrize("count", [1, 2, 17])
def test_histogram_has_one_uncut_panel_per_title(count, look):
    torch.manual_seed(0)
    item = Histogram("h", "Many", {f"map {i}": torch.rand(50) for i in range(count)}, "x")
    panels = [axes for axes in draw_histogram(item).axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == list(item.panels)
    picture = look.opened(png(item, "note"))
    assert min(look.margins(picture)) >= 5
    assert picture.shape[1] <= 13 * 150


@pytest.mark.parametrize(
    ("count", "rows"),
    slow_except(
        [(3, 1), (7, 2), (10, 2), (17, 3)],
        [(3, 1), (6, 2), (7, 2), (10, 2), (12, 3), (16, 4), (17, 3), (100, 13)],
    ),
)
def test_panels_form_a_grid_with_few_empty_cells(count, rows):
    item = Histogram("h", "t", {f"map {i}": torch.arange(9.0) for i in range(count)}, "x")
    [grid] = {axes.get_gridspec() for axes in draw_histogram(item).axes}
    assert grid.nrows == rows
    assert grid.nrows * grid.ncols - count < grid.ncols


def test_panels_with_constant_or_no_finite_values_are_annotated():
    item = Histogram(
        "h", "", {"same": torch.full((9,), 2.0), "none": torch.tensor([NAN])}, "x", True
    )
    texts = [[text.get_text() for text in axes.texts] for axes in draw_histogram(item).axes]
    assert texts == [["all 2"], ["no finite values"]]


def test_empty_findings_can_be_drawn():
    for item in (
        Lines("l", "t", torch.zeros(0), {}, "x", "y"),
        Bars("b", "t", [], {}, "y"),
        Histogram("h", "t", {}, "x", normal=True),
    ):
        assert png(item, "")[:4] == b"\x89PNG"
