"""Panels of curves: colours, dashes, shared axes, labels, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from latentforge.findings import CurveGrid, Findings, checked
from latentforge.rendering.curve_grid import draw_curves
from latentforge.rendering.write import write_findings

X = torch.sin(torch.linspace(0, 6, 40)) * torch.arange(1, 8)[:, None, None]  # (7, 1, 40)


def panels(grid):
    """The axes of the panels, without that of a colour bar."""
    figure = draw_curves(grid)
    figure.canvas.draw()
    return figure, figure.axes[: sum(map(len, grid.rows))]


def looks(axes):
    return [(line.get_color(), line.get_linestyle()) for line in axes.lines]


def test_a_sequence_has_one_colour_for_each_step_and_a_labelled_bar():
    grid = CurveGrid("a", "A", [[X], [2 * X]], [f"t{i}" for i in range(7)], sequence=True)
    figure, (first, second) = panels(grid)
    assert len({tuple(colour) for colour, _ in looks(first)}) == 7
    assert {style for _, style in looks(first)} == {"-"}
    assert [tuple(c) for c, _ in looks(first)] == [tuple(c) for c, _ in looks(second)]
    assert first.get_ylim() == second.get_ylim()
    labels = [text.get_text() for text in figure.axes[-1].get_yticklabels()]
    assert labels == ["t0", "t3", "t6"]


def test_the_ends_of_a_sequence_are_dashed_and_not_in_the_bar():
    names = ["image", *"abcde", "image"]
    figure, [axes] = panels(CurveGrid("a", "A", [[X]], names, sequence=True, ends=True))
    assert [style for _, style in looks(axes)] == ["--", *"-----", "--"]
    labels = [text.get_text() for text in figure.axes[-1].get_yticklabels()]
    assert labels == ["a", "c", "e"]


def test_curves_differ_in_dash_and_channels_in_colour():
    pair = torch.stack([X[:3, 0], 2 * X[:3, 0]])  # (2, 3, 40)
    _, [axes] = panels(CurveGrid("a", "A", [[pair]], ("data", "reconstruction")))
    colours = [colour for colour, _ in looks(axes)]
    assert colours[:3] == colours[3:]
    assert len(set(colours)) == 3
    assert [style for _, style in looks(axes)] == ["-"] * 3 + ["--"] * 3
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["data", "reconstruction", "channel 0", "channel 1", "channel 2"]


def test_panels_share_their_axes_but_columns_of_a_sequence_may_have_other_units():
    rows = [[X, 100 * X], [2 * X, 3 * X]]
    _, axes = panels(CurveGrid("a", "A", rows))
    assert len({a.get_ylim() for a in axes}) == 1
    _, axes = panels(CurveGrid("a", "A", rows, sequence=True))
    assert axes[0].get_ylim() == axes[2].get_ylim() != axes[1].get_ylim()


def test_titles_and_captions_are_drawn_and_short_rows_leave_empty_panels():
    grid = CurveGrid(
        "a", "A", [[X, X], [X]], column_titles=["l", "r"], row_titles=["up", "$down"],
        captions=[["one", "two"], ["three"]], x_title="hours",
    )  # fmt: skip
    figure = draw_curves(grid)
    figure.canvas.draw()
    assert [a.get_title() for a in figure.axes] == ["l\none", "r\ntwo", "three", ""]
    assert [a.get_ylabel() for a in figure.axes[::2]] == ["up", r"\$down"]
    assert figure.axes[2].get_xlabel() == "hours"
    assert not figure.axes[3].axison


def test_nan_and_infinity_leave_gaps():
    x = X.clone()
    x[0, 0, 3], x[0, 0, 5] = float("inf"), float("nan")
    _, [axes] = panels(CurveGrid("a", "A", [[x]]))
    y = axes.lines[0].get_ydata()
    assert [i for i, value in enumerate(y) if value != value] == [3, 5]


def test_it_is_written_as_a_picture_that_findings_and_tensorboard_list(tmp_path):
    grid = CurveGrid("waves", "Waves", [[X]])
    files = write_findings(Findings([grid]), tmp_path, {"run": "runs/r", "explorer": "e"})
    assert [file.name for file in files] == ["waves.png", "findings.json"]
    [item] = json.loads(files[1].read_text())["items"]
    assert (item["kind"], item["files"]) == ("CurveGrid", ["waves.png"])
    events = b"".join(file.read_bytes() for file in tmp_path.glob("events*"))
    assert b"e/waves" in events


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"rows": []}, ValueError, r"must be \(n, C, L\)"),
        ({"rows": [[X[0]]]}, ValueError, r"must be \(n, C, L\), not \[\(1, 40\)\]"),
        ({"rows": [[X, X[:2]]]}, ValueError, "the same number of curves"),
        ({"rows": [X]}, TypeError, "a row of 'a' must be a list"),
        ({"curves": ["one"]}, ValueError, "one name in `curves` per curve"),
        ({"rows": [[X[:2]]], "ends": True}, ValueError, "at least 3 curves"),
        ({"captions": ["x"]}, TypeError, "a row of captions"),
        ({"row_titles": [1]}, TypeError, "must be strings"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        checked(Findings([CurveGrid(**{"name": "a", "title": "A", "rows": [[X]], **change})]))
