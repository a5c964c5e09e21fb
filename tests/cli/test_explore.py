"""`latentforge explore`: its output and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .files import files_in, is_png


def test_explore_writes_an_image_and_lists_it_in_json(cli, runs):
    answer = cli("explore", "interpolate", "runs/ae", "--set", "classes=[3, 8]", "--json")
    assert answer.code == 0
    said = answer.json
    assert set(said) == {"explorer", "weights", "out", "files", "metrics", "protocol", "notes"}
    assert (said["explorer"], said["out"]) == ("interpolate", "runs/ae/explore/interpolate")
    there = {name for name in files_in(Path(said["out"])) if not name.startswith("events.out.")}
    assert {Path(file).name for file in said["files"]} == there
    (picture,) = (file for file in said["files"] if file.endswith(".png"))
    assert is_png(picture)
    findings = json.loads(Path(said["out"], "findings.json").read_text())
    assert findings["options"]["classes"] == [3, 8]
    assert findings["metrics"] == said["metrics"]
    with np.load(Path(said["out"], "codes.npz")) as codes:
        assert codes["z_linear"].shape == (10, 4)
        assert codes["x_spherical"].shape == (10, 1, 28, 28)


def test_explore_prints_the_files(cli, runs):
    answer = cli("explore", "interpolate", "runs/ae", "--set", "steps=3", "--set", "path=linear")
    assert answer.code == 0
    listed = [line for line in answer.out.splitlines() if line.startswith("runs/ae/explore/")]
    assert len(listed) == 3
    assert all(Path(line).is_file() for line in listed)


def test_second_explore_overwrites_nothing(cli, runs):
    first = cli("explore", "interpolate", "runs/ae", "--json").json
    before = {file: Path(file).read_bytes() for file in first["files"]}
    second = cli("explore", "interpolate", "runs/ae", "--json").json
    assert second["out"] == "runs/ae/explore/interpolate-2"
    assert {file: Path(file).read_bytes() for file in first["files"]} == before


def test_out_must_be_a_new_or_empty_folder(cli, runs):
    assert cli("explore", "interpolate", "runs/ae", "--out", "new/one").code == 0
    assert "interpolation.png" in files_in(Path("new/one"))
    Path("notes.txt").write_text("mine")
    for taken in ("new/one", "notes.txt"):
        answer = cli("explore", "interpolate", "runs/ae", "--out", taken)
        assert answer.code == 2
        assert f"{taken} is " in answer.err
        assert "choose another folder" in answer.err
    assert Path("notes.txt").read_text() == "mine"


def test_explore_twice_the_same_class_uses_two_images(cli, runs):
    out = cli("explore", "interpolate", "runs/ae", "--set", "classes=[7, 7]", "--json").json["out"]
    with np.load(Path(out, "codes.npz")) as codes:
        first, second = codes["index"]
    assert first != second  # two images of one class, not one image twice
