"""Invalid findings are refused by name before anything is drawn or written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from latentforge import ExplorerSpec, Forge
from latentforge.errors import PluginError
from latentforge.findings import (
    Bars,
    Film,
    Findings,
    Histogram,
    ImageGrid,
    Lines,
    NamedArrays,
    Plane,
    Raw,
    Scatter,
    Table,
    checked,
)

from ..plugin import plugin_of

POINTS, IMAGES = torch.rand(4, 2), torch.rand(4, 1, 8, 8)
CURVE = Lines("wrong", "", torch.arange(3.0), {}, "x", "y")


@pytest.mark.parametrize(
    "item",
    [
        Film("wrong", "", [[]]),
        Film("wrong", "", [[CURVE]]),
        Table("wrong", "", ["a"], [[None]]),
        NamedArrays("wrong", {"x": [1, 2]}),
        ImageGrid("wrong", "", [torch.rand(2, 1, 0, 8)]),
        ImageGrid("wrong", "", [torch.rand(2, 1, 8, 0)]),
        ImageGrid("wrong", "", [IMAGES], captions=[[1, 2]]),
        Lines("wrong", "", torch.rand(3, 2), {"y": torch.rand(3, 2)}, "x", "y"),
        Bars("wrong", "", ["a"], {"y": [None]}, "y"),
        Histogram("wrong", "", {}, "x"),
        Scatter("wrong", "", POINTS, codes=torch.rand(3, 5)),
        Scatter("wrong", "", POINTS, torch.tensor([0, 1, 2, 0]), ["a", "b"]),
        Scatter("wrong", "", POINTS, torch.tensor([0, 1, -1, 0]), ["a", "b"]),
        Scatter("wrong", "", POINTS, torch.rand(4), ["a", "b"]),
        Scatter("wrong", None, POINTS),
        Scatter("wrong", "", POINTS, values=torch.rand(3)),
        Scatter("wrong", "", POINTS, values=torch.tensor([0.0, 1.0, math.nan, 2.0])),
        Scatter("wrong", "", POINTS, values=[0.0, 1.0, 2.0, 3.0]),
        Scatter("wrong", "", POINTS, values=torch.rand(4), values_title=None),
        ImageGrid("wrong", "", [IMAGES.numpy()]),
        ImageGrid("wrong", "", [IMAGES], captions=["a"]),
        ImageGrid("wrong", "", [IMAGES], "title"),
        Scatter("wrong", "", POINTS, images=IMAGES.numpy()),
        Scatter("wrong", "", POINTS, plane=IMAGES),
        Scatter("wrong", "", POINTS, paths=[POINTS]),
        Bars("wrong", "", POINTS, {"y": [1.0]}, "y"),
        Bars("wrong", "", ["a"], [[1.0]], "y"),
        Histogram("wrong", "", POINTS, "x"),
        Lines("wrong", "", torch.arange(3.0), [torch.arange(3.0)], "x", "y"),
        Film("wrong", "", IMAGES),
        Film("wrong", "", [IMAGES]),
        Table("wrong", "", "ab", [[1, 2]]),
        NamedArrays("wrong", POINTS),
        Scatter("wrong", "", torch.rand(4, 3)),
        Scatter("wrong", "", POINTS, images=IMAGES[:3]),
        Scatter("wrong", "", POINTS, paths={"a": torch.rand(5, 3)}),
        Scatter("wrong", "", POINTS, plane=Plane(IMAGES, (0.0, 1.0), (0.0, 1.0))),
        Film("wrong", "", []),
        Film("wrong", "", [[ImageGrid("a", "", [IMAGES])], [Bars("b", "", ["a"], {}, "y")]]),
        Raw("wrong", "svg", b""),
        Raw("wrong", ".svg", "text"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_invalid_finding_is_refused_by_name(item):
    with pytest.raises((TypeError, ValueError), match="wrong"):
        checked(Findings([item]))


def test_image_grid_without_a_list_of_rows_is_refused():
    for rows in (IMAGES, IMAGES.numpy()):
        with pytest.raises(
            TypeError, match=r"rows of 'g' must be a list of tensors \(n, C, H, W\)"
        ):
            checked(Findings([ImageGrid("g", "Grid", rows)]))


@pytest.mark.parametrize(
    "findings",
    [
        Findings(NamedArrays("one", {"x": POINTS})),
        Findings([], notes="one"),
        Findings([], metrics=[1.0]),
        Findings([], roles=["judge"]),
    ],
)
def test_findings_fields_must_be_lists_and_dicts(findings):
    with pytest.raises(TypeError, match="of 'Findings' must be a"):
        checked(findings)


def test_what_an_explorer_returns_must_be_findings_with_distinct_names():
    with pytest.raises(TypeError, match="must return Findings, not list"):
        checked([NamedArrays("one", {})])
    with pytest.raises(TypeError, match="str is not a finding"):
        checked(Findings(["one"]))
    with pytest.raises(ValueError, match="two findings have the name 'one'"):
        checked(Findings([NamedArrays("one", {}), NamedArrays("one", {})]))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("findings", ".json"), ("Findings", ".json"), ("projector_config", ".pbtxt")],
)
def test_reserved_file_names_are_refused(name, suffix):
    with pytest.raises(ValueError, match="give another name"):
        checked(Findings([Raw(name, suffix, b"")]))
    assert checked(Findings([Raw(name, ".svg", b"")])).items


@dataclass(frozen=True)
class Nothing:
    """No options."""


def explore(context, options):
    """The second finding cannot be drawn: numpy does not support sparse tensors."""
    grid = ImageGrid("fine", "Fine", [IMAGES])
    return Findings([grid, NamedArrays("wrong", {"x": torch.eye(3).to_sparse()})])


def test_drawing_failure_names_the_plugin_and_leaves_no_partial_folder(runs):
    odd = ExplorerSpec(name="odd", config=Nothing, summary="odd", explore=explore)
    run = Forge([plugin_of(odd)]).open_run("runs/ae")
    there = Path("there")
    there.mkdir()
    for out in (None, "fresh", there):
        with pytest.raises(
            PluginError, match="drawing the findings of explorer 'odd' failed"
        ) as caught:
            run.explore("odd", out=out)
        assert "explorer 'odd' of plugin Plugin" in caught.value.details[0]
    assert not Path("runs/ae/explore/odd").exists()
    assert not Path("fresh").exists()
    assert list(there.iterdir()) == []  # it existed before, so it is kept
