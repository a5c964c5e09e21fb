"""A run folder from somebody else is data: nothing in it runs, and nothing leads out of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

SECRET = "a secret of the user's"


def change(run: Path, **parts: object) -> None:
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, **parts}))


@pytest.mark.parametrize("text", ["[" * 10**6 + "]" * 10**6, '{"a":' * 10**6, " " * 2**26 + "{}"])
def test_a_manifest_of_any_depth_and_size_is_refused(cli, runs, text):
    (runs / "ae" / "run.json").write_text(text)
    for line in ("evaluate runs/ae", "train --resume runs/ae --epochs 9", "report runs/ae"):
        answer = cli(*line.split())
        assert answer.code == 4
        assert "cannot be read as a run" in answer.err
        assert "Traceback" not in answer.err


def test_a_plugin_that_a_run_names_is_never_imported_by_its_path(cli, runs, work):
    (work / "evil.py").write_text("import pathlib\npathlib.Path('pwned').touch()\n")
    manifest = json.loads((runs / "ae" / "run.json").read_text())
    for plugin in manifest["plugins"]:
        plugin["module"] = "./evil.py"
    manifest["plugins"].append(
        {"kind": "models", "name": "evil", "plugin": "evil", "module": "evil", "distribution": ""}
    )
    (runs / "ae" / "run.json").write_text(json.dumps(manifest))
    sys.path.insert(0, str(work))
    try:
        for line in ("evaluate runs/ae", "train --resume runs/ae --epochs 9", "report runs/ae"):
            answer = cli(*line.split())
            assert "Traceback" not in answer.err
    finally:
        sys.path.remove(str(work))
    assert not (work / "pwned").exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_report_shows_nothing_that_a_link_leads_to(cli, runs, tmp_path, what):
    """A picture outside the run, which somebody who is sent the report must not see."""
    outside = tmp_path / "outside"
    assert cli("explore", "interpolate", "runs/ae", "--out", outside).code == 0
    picture = next(outside.glob("*.png"))
    (outside / "findings.json").write_text(
        (outside / "findings.json").read_text().replace("Interpolation", SECRET)
    )
    explored = runs / "ae" / "explore" / "interpolate"
    if what == "folder":
        explored.parent.mkdir()
        explored.symlink_to(outside, target_is_directory=True)
    else:
        assert cli("explore", "interpolate", "runs/ae").code == 0
        Image.new("L", (9, 9)).save(picture)
        (explored / picture.name).unlink()
        (explored / picture.name).symlink_to(picture)
    answer = cli("report", "runs/ae", "--json")
    assert answer.code == 0, answer.err
    assert any("leads out" in warning for warning in answer.json["warnings"])
    assert SECRET not in (runs / "ae" / "report.html").read_text()


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../etc/passwd", "..", "a\\..\\b"])
def test_a_pointer_that_names_a_path_leads_nowhere(cli, runs, name):
    for pointer in ("LATEST", "BEST"):
        (runs / "ae" / "checkpoints" / pointer).write_text(f"{name}\n")
    answer = cli("evaluate", "runs/ae", "--checkpoint", "best")
    assert answer.code == 1
    assert "BEST is damaged" in answer.err


def test_events_that_a_run_names_are_cut_in_its_own_folder_alone(cli, runs, work):
    """A resumed run removes what came after its checkpoint: only its own files of events."""
    outside = work / "events.out.tfevents.1.host.1"
    for file in (outside, runs / "ae" / "notes.txt", runs / "ae" / "events.out.tfevents.mine"):
        file.write_text(SECRET)
    link = runs / "ae" / "events.out.tfevents.2.host.2"
    link.symlink_to(outside)
    names = [f"../../{outside.name}", str(outside), link.name, "notes.txt", "../../work"]
    change(runs / "ae", events=names)
    assert cli("train", "--resume", "runs/ae", "--epochs", 9, "--quiet").code == 0
    for file in (outside, runs / "ae" / "notes.txt", runs / "ae" / "events.out.tfevents.mine"):
        assert file.read_text() == SECRET


def test_a_class_that_is_called_like_a_script_is_text_in_the_report(cli, runs):
    manifest = json.loads((runs / "cnn" / "run.json").read_text())
    data = {**manifest["data"], "classes": ["<script>alert(1)</script>", *"123456789"]}
    change(runs / "cnn", data=data)
    assert cli("report", "runs/cnn").code == 0
    page = (runs / "cnn" / "report.html").read_text()
    assert "<script>alert(1)" not in page
