"""Stored findings round-trip, and damaged files are refused by name."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from latentforge.errors import LatentForgeError, MissingError, UsageError
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
from latentforge.rendering.findings_store import read_findings
from latentforge.rendering.write import write_findings

ABOUT = {
    "explorer": "sweep",
    "run": "runs/vae",
    "roles": {"judge": "runs/cnn"},
    "checkpoint": "step-00000001",
    "options": {"steps": 3},
}
NAN = float("nan")


@pytest.fixture(scope="module")
def findings(digits):
    n = 60
    plane = Plane(digits.x[:6].unflatten(0, (2, 3)), (-1.0, 1.0), (0.0, 2.5))
    grid = ImageGrid("grid", "Some digits", [digits.x[:4]])
    items = [
        Scatter(
            name="map",
            title="A map",
            points=digits.z[:n, :2],
            labels=digits.y[:n],
            classes=digits.classes,
            images=digits.x[:n],
            plane=plane,
            paths={"a / b": digits.z[:5, :2], "..": digits.z[5:7, :2]},
            codes=digits.z[:n],
            axes=("PC 1 (20 %)", "PC 2"),
        ),
        Scatter("bare", "Points alone", digits.z[:n, :2].half()),
        Lines("lines", "Curves", torch.arange(3), {"x/y": torch.tensor([1, NAN, 3])}, "t", "nats"),
        Bars("bars", "Bars", ["a", "b"], {"é": [0.25, NAN]}, "p"),
        Histogram("hist", "Values", {"unit 1": torch.randn(30)}, "activation", normal=True),
        Table("table", "Table", ["name", "n", "x"], [['say "a, b"', 3, 0.5], ["\n", 0, NAN]]),
        NamedArrays("codes", {"z": digits.z[:n], "file": torch.arange(3), "b": torch.ones(2) > 0}),
        Raw("drawing", ".svg", b"<svg/>"),
        Film("film", "A film", [[grid], [replace(grid, rows=[digits.x[4:8]])]]),
        grid,
    ]
    return Findings(items, {"share": 0.5, "undefined": NAN}, "of test", ("a note",))


@pytest.fixture(scope="module")
def folder(findings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("found")
    write_findings(findings, folder, ABOUT)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the stored folder without pages, to be damaged."""
    content = json.loads((folder / "findings.json").read_text())
    for path in folder.glob("*.*"):
        if path.suffix != ".html":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for item in content["items"]:
        item["files"] = [name for name in item["files"] if not name.endswith(".html")]
    (tmp_path / "findings.json").write_text(json.dumps(content))
    return tmp_path


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(99), other.nan_to_num(99))
    if isinstance(one, Plane):
        return all(equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other or (one != one and other != other)


# ---------------------------------------------------------------- round trips


def test_values_of_a_map_round_trip(digits, tmp_path):
    values = torch.linspace(-40, 40, 9, dtype=torch.float64)
    item = Scatter("m", "", digits.z[:9, :2], digits.y[:9], values=values, values_title="angle")
    write_findings(Findings([item]), tmp_path, ABOUT)
    [stored] = read_findings(tmp_path).items
    for key in ("values", "values_title", "labels"):
        assert equal(getattr(stored.finding, key), getattr(item, key))


def test_page_of_a_finding_names_the_run_it_shows(digits, tmp_path):
    maps = [Scatter(name, "A map", digits.z[:9, :2]) for name in ("own", "theirs")]
    about = {**ABOUT, "role_checkpoints": {"judge": "step-00000007"}}
    write_findings(Findings(maps, roles={"theirs": "judge"}), tmp_path, about)
    own, theirs = ((tmp_path / f"{m.name}.html").read_text("utf-8") for m in maps)
    assert f"{ABOUT['run']}, {ABOUT['checkpoint']}" in own
    assert "runs/cnn" not in own
    assert "runs/cnn, step-00000007" in theirs
    assert ABOUT["run"] not in theirs
    with pytest.raises(ValueError, match="roles contains 'nothing', but there is no such finding"):
        checked(Findings(maps, roles={"nothing": "judge"}))


def test_files_of_all_findings_are_listed_in_order(findings, tmp_path):
    few = Findings([item for item in findings.items if not isinstance(item, Scatter)])
    files = write_findings(few, tmp_path, ABOUT)
    assert [file.name for file in files] == [
        *("lines.png", "lines.npz", "bars.png", "hist.png", "hist.npz", "table.csv", "codes.npz"),
        *("drawing.svg", "film.gif", "film.png", "grid.png", "findings.json"),
    ]
    assert all(file.stat().st_size for file in files)
    stored = read_findings(tmp_path)
    assert [file for item in stored.items for file in item.files] == files[:-1]


def test_values_round_trip_exactly(findings, folder):
    stored = read_findings(folder)
    found = {item.name: item.finding for item in stored.items}
    for item in findings.items[1:6]:
        assert type(found[item.name]) is type(item)
        for of in fields(item):
            assert equal(getattr(found[item.name], of.name), getattr(item, of.name)), of.name
    for item in stored.items[6:]:
        assert item.finding is None
        assert item.files


def test_map_round_trips_with_8_bit_images(findings, folder):
    one, other = findings.items[0], read_findings(folder).items[0].finding
    for name in ("points", "labels", "classes", "paths", "codes", "axes", "name", "title"):
        assert equal(getattr(one, name), getattr(other, name)), name
    assert (one.images - other.images).abs().max() <= 0.5 / 255 + 1e-6
    assert (one.plane.images - other.plane.images).abs().max() <= 0.5 / 255 + 1e-6
    assert (one.plane.x, one.plane.y) == (other.plane.x, other.plane.y)


def test_options_metrics_and_notes_round_trip(folder):
    stored = read_findings(folder)
    assert stored.about == ABOUT
    assert stored.metrics["share"] == 0.5
    assert math.isnan(stored.metrics["undefined"])
    assert (stored.protocol, stored.notes) == ("of test", ["a note"])
    assert [(item.kind, item.title) for item in stored.items][:2] == [
        ("Scatter", "A map"),
        ("Scatter", "Points alone"),
    ]


def test_loaded_findings_can_be_stored_again(folder, tmp_path):
    stored = read_findings(folder)
    again = [item.finding for item in stored.items if item.finding]
    write_findings(Findings(again, stored.metrics), tmp_path, ABOUT)
    for one, other in zip(stored.items, read_findings(tmp_path).items, strict=False):
        assert all(
            equal(getattr(one.finding, f.name), getattr(other.finding, f.name))
            for f in fields(one.finding)
        )


def test_table_is_valid_csv(folder):
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "n", "x"], ['say "a, b"', "3", "0.5"], ["\n", "0", "nan"]]


def test_arrays_are_readable_by_numpy_without_pickle(folder, digits):
    with np.load(folder / "codes.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"z", "file", "b"}
        assert np.array_equal(arrays["z"], digits.z[:60].numpy())


def test_findings_json_is_strict_json(folder):
    def refuse(constant):
        raise ValueError(constant)

    content = json.loads((folder / "findings.json").read_text(), parse_constant=refuse)
    assert content["explorer"] == "sweep"
    assert content["metrics"] == {"share": 0.5, "undefined": None}


def test_folder_of_an_older_version_is_read_by_file_names(tmp_path):
    (tmp_path / "walk.png").write_bytes(b"")
    (tmp_path / "codes.npz").write_bytes(b"")
    content = {**ABOUT, "metrics": {"a": 1.0}, "protocol": "p", "files": ["walk.png", "codes.npz"]}
    (tmp_path / "findings.json").write_text(json.dumps(content))
    stored = read_findings(tmp_path)
    assert [(item.kind, item.name) for item in stored.items] == [
        ("ImageGrid", "walk"),
        ("NamedArrays", "codes"),
    ]
    assert stored.items[0].files == [tmp_path / "walk.png"]
    assert (stored.about, stored.metrics, stored.notes) == (ABOUT, {"a": 1.0}, [])


def test_existing_file_is_not_overwritten(findings, tmp_path):
    (tmp_path / "drawing.svg").write_text("mine")
    with pytest.raises(
        UsageError, match=r"drawing\.svg already exists and will not be overwritten"
    ):
        write_findings(Findings([findings.items[7]]), tmp_path, ABOUT)
    assert (tmp_path / "drawing.svg").read_text() == "mine"


# ---------------------------------------------------------------- damage


def test_folder_without_findings_is_reported_as_missing(tmp_path):
    with pytest.raises(MissingError, match=r"findings\.json does not exist"):
        read_findings(tmp_path)


def test_missing_file_is_named(copy):
    (copy / "lines.npz").unlink()
    with pytest.raises(MissingError, match=r"lines\.npz"):
        read_findings(copy)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("name", ["findings.json", "map.npz", "lines.npz"])
def test_a_truncated_file_is_refused_by_name(copy, name, share):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(LatentForgeError, match=name.replace(".", r"\.")):
        read_findings(copy)


def test_arrays_that_need_pickle_are_refused(copy):
    np.savez(copy / "lines.npz", x=np.array([{}], dtype=object), y_0=np.zeros(1))
    with pytest.raises(UsageError, match=r"lines\.npz: x contains Python objects"):
        read_findings(copy)


def edit_item(path, of, **changes):
    content = json.loads(path.read_text())
    entry = next(item for item in content["items"] if item["name"] == of)
    entry.update(changes)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "changes",
    [
        {"of": "lines", "series": None},
        {"of": "lines", "series": ["a", "b"]},
        {"of": "lines", "name": "../lines"},
        {"of": "lines", "files": ["../lines.npz"]},
        {"of": "lines", "files": ["/etc/passwd"]},
        {"of": "lines", "files": []},
        {"of": "bars", "series": {"a": [1.0]}},
        {"of": "bars", "series": {"a": ["high", "low"]}},
        {"of": "table", "rows": [[1, 2]]},
        {"of": "table", "rows": 3},
        {"of": "map", "axes": ["x"]},
        {"of": "map", "plane": [[0, 1]]},
        {"of": "map", "paths": ["a", "b", "c"]},
    ],
    ids=str,
)
def test_inconsistent_items_are_refused(copy, changes):
    edit_item(copy / "findings.json", **changes)
    with pytest.raises(UsageError, match=r"findings\.json is truncated or damaged"):
        read_findings(copy)


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"metrics": 1}', "[" * 100_000, "\xff"])
def test_json_of_another_structure_is_refused(tmp_path, text):
    (tmp_path / "findings.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"findings\.json is truncated or damaged"):
        read_findings(tmp_path)


def test_arrays_of_inconsistent_shapes_are_refused(copy):
    with np.load(copy / "map.npz") as arrays:
        changed = {**arrays, "labels": arrays["labels"][:5]}
    np.savez(copy / "map.npz", **changed)
    with pytest.raises(UsageError, match=r"findings\.json is truncated or damaged"):
        read_findings(copy)
