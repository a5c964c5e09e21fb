"""An untrusted run folder is data: its code never runs, and its links are not followed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

SECRET = "a secret of the user's"


def edit_manifest(run: Path, **parts: object) -> None:
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, **parts}))


@pytest.mark.parametrize("text", ["[" * 10**6 + "]" * 10**6, '{"a":' * 10**6, " " * 2**25 + "{}"])
def test_manifest_that_is_too_deep_or_too_large_is_refused(cli, runs, text):
    (runs / "ae" / "run.json").write_text(text)
    for line in ("evaluate runs/ae", "train --resume runs/ae --epochs 9", "report runs/ae"):
        answer = cli(*line.split())
        assert answer.code == 4
        assert "cannot be read as the manifest of a run" in answer.err
        assert "Traceback" not in answer.err


def test_plugin_named_by_a_run_is_never_imported_by_path(cli, runs, work):
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
def test_report_does_not_show_the_targets_of_links(cli, runs, tmp_path, what):
    """Images and findings outside the run must not leak into a report that is shared."""
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
    assert any("is a link to a place outside" in warning for warning in answer.json["warnings"])
    assert SECRET not in (runs / "ae" / "report.html").read_text()


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../etc/passwd", "..", "a\\..\\b"])
def test_checkpoint_pointer_that_contains_a_path_is_refused(cli, runs, name):
    for pointer in ("LATEST", "BEST"):
        (runs / "ae" / "checkpoints" / pointer).write_text(f"{name}\n")
    answer = cli("evaluate", "runs/ae", "--checkpoint", "best")
    assert answer.code == 1
    assert "BEST is damaged" in answer.err


def test_resume_truncates_event_files_of_the_run_folder_only(cli, runs, work):
    """Resuming removes events written after the checkpoint, but only from the run's own files."""
    manifest = json.loads((runs / "ae" / "run.json").read_text())
    own = runs / "ae" / manifest["events"][0]  # the checkpoint stores its size
    outside = work / "events.out.tfevents.1.host.1"
    long = own.read_text("latin-1") + SECRET * 1000
    for file in (outside, runs / "ae" / "notes.txt", runs / "ae" / "events.out.tfevents.mine"):
        file.write_text(long, "latin-1")
    own.unlink()
    own.symlink_to(outside)
    names = [own.name, f"../../{outside.name}", str(outside), "notes.txt", "../../work"]
    edit_manifest(runs / "ae", events=names)
    assert cli("train", "--resume", "runs/ae", "--epochs", 9, "--quiet").code == 0
    for file in (outside, runs / "ae" / "notes.txt", runs / "ae" / "events.out.tfevents.mine"):
        assert file.read_text("latin-1") == long


@pytest.mark.parametrize(
    ("link", "line"),
    [
        ("checkpoints", "train --resume runs/ae --epochs 9 --quiet"),
        ("metrics.jsonl", "train --resume runs/ae --epochs 9 --quiet"),
        ("evaluations.jsonl", "evaluate runs/ae"),
        ("explore", "explore interpolate runs/ae --quiet"),
        ("export", "export runs/ae --part decoder --format onnx"),
    ],
)
def test_nothing_is_written_or_removed_through_a_link(cli, runs, work, link, line):
    path, outside = runs / "ae" / link, work / "outside"
    if path.exists():
        path.rename(outside)
    elif link in ("explore", "export"):
        outside.mkdir()
    else:
        outside.write_text(SECRET)
    path.symlink_to(outside)
    if outside.is_dir():
        (outside / ".tmp-mine").write_text(SECRET)
    before = contents_of(outside)
    answer = cli(*line.split())
    assert "Traceback" not in answer.err
    assert contents_of(outside) == before
    assert "is a link to a place outside" in answer.err


def contents_of(path: Path) -> dict[str, bytes]:
    found = path.rglob("*") if path.is_dir() else [path]
    return {str(file): file.read_bytes() for file in found if file.is_file()}


def test_resume_refuses_the_config_of_a_model_larger_than_its_weights(cli, runs):
    manifest = json.loads((runs / "ae" / "run.json").read_text())
    manifest["config"]["model"]["hidden"] = [10**7, 10**7]
    (runs / "ae" / "run.json").write_text(json.dumps(manifest))
    answer = cli("train", "--resume", "runs/ae", "--epochs", 9, "--quiet")
    assert answer.code == 1
    assert "do not fit model 'ae'" in answer.err
    assert "start a new run" in answer.err


@pytest.mark.parametrize("file", ["checkpoints/LATEST", "metrics.jsonl", "evaluations.jsonl"])
def test_huge_sparse_file_is_not_read_into_memory(cli, runs, file):
    """The file is sparse: 2^40 bytes, none of them allocated."""
    with (runs / "ae" / file).open("ab") as large:
        large.truncate(2**40)
    for line in ("report runs/ae", "train --resume runs/ae --epochs 9 --quiet"):
        answer = cli(*line.split())
        assert "Traceback" not in answer.err
        assert "in LatentForge itself" not in answer.err
    assert "bytes" in answer.err or file == "evaluations.jsonl"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this platform")
def test_named_pipe_in_place_of_a_file_does_not_block(cli, runs):
    (runs / "ae" / "metrics.jsonl").unlink()
    os.mkfifo(runs / "ae" / "metrics.jsonl")
    answer = cli("report", "runs/ae")
    assert "it is not a regular file" in answer.err


def test_report_escapes_html_in_class_names(cli, runs):
    manifest = json.loads((runs / "cnn" / "run.json").read_text())
    data = {**manifest["data"], "classes": ["<script>alert(1)</script>", *"123456789"]}
    edit_manifest(runs / "cnn", data=data)
    assert cli("report", "runs/cnn").code == 0
    page = (runs / "cnn" / "report.html").read_text()
    assert "<script>alert(1)" not in page


@pytest.mark.parametrize(
    ("section", "key", "value", "shown"),
    [
        ("model", "activation", "tanh", '"tanh" in run.json, "elu" in training'),
        ("loss", "likelihood", "gaussian", '"gaussian" in run.json'),
        ("train", "seed", 7, "train.seed: 7 in run.json, 0 in training"),
        ("train", "lr", 0.5, "train.lr: 0.5 in run.json"),
        ("data", "split_seed", 3, "data.split_seed: 3 in run.json"),
    ],
)
def test_edited_settings_are_reported_by_evaluate_and_refused_by_resume(
    cli, runs, section, key, value, shown
):
    path = Path("runs/ae/run.json")
    manifest = json.loads(path.read_text())
    assert manifest["config"][section][key] != value
    manifest["config"][section][key] = value
    path.write_text(json.dumps(manifest))
    evaluated = cli("evaluate", "runs/ae")
    assert "run.json was edited after checkpoint" in evaluated.err
    assert shown in evaluated.err
    before = path.read_bytes()
    refused = cli("train", "--resume", "runs/ae", "--epochs", 5)
    assert refused.code == 1
    assert "run.json was edited after checkpoint" in refused.err
    assert shown in refused.err
    assert path.read_bytes() == before


def test_settings_that_a_resume_changed_are_no_edits(cli, runs):
    line = ("train", "--resume", "runs/ae", "--epochs", 5, "--set", "train.log_every=7", "--quiet")
    assert cli(*line).code == 0
    assert cli("train", "--resume", "runs/ae", "--epochs", 6, "--quiet").code == 0
    assert cli("evaluate", "runs/ae").err == ""


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", "evaluations.jsonl"])
def test_files_that_are_links_out_of_the_run_are_not_read(cli, runs, work, file):
    path, outside = runs / "ae" / file, work / file
    outside.write_text(path.read_text() if path.exists() else f"{SECRET}\n")
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    answer = cli("report", "runs/ae")
    assert "is a link to a place outside its folder" in answer.err
    assert answer.code == (4 if file == "run.json" else 0)
    page = runs / "ae" / "report.html"
    assert not page.exists() or SECRET not in page.read_text()


def test_a_link_to_a_run_folder_can_be_used(cli, runs):
    (runs / "link").symlink_to("ae")
    assert cli("evaluate", "runs/link").code == 0


def test_an_edited_class_or_shape_is_reported_by_evaluate_and_refused_by_resume(cli, runs):
    path = runs / "cnn" / "run.json"
    manifest = json.loads(path.read_text())
    manifest["data"]["classes"].reverse()
    path.write_text(json.dumps(manifest))
    assert "data.classes: " in cli("evaluate", runs / "cnn").err
    refused = cli("train", "--resume", runs / "cnn", "--epochs", "99")
    assert refused.code == 1
    assert "run.json was edited after checkpoint" in refused.err


def test_missing_and_repeated_epochs_are_reported(cli, runs):
    path = runs / "ae" / "metrics.jsonl"
    first = path.read_text().splitlines(keepends=True)[0]
    path.write_text(first + path.read_text())
    for command in (("doctor",), ("report",)):
        assert "lines that repeat an epoch" in cli(*command, runs / "ae").err
    path.write_text("")
    assert "metrics.jsonl has 0 epochs, but" in cli("doctor", runs / "ae").err
    path.unlink()
    path.mkdir()
    refused = cli("train", "--resume", runs / "ae", "--epochs", "99")
    assert refused.code == 1
    assert "metrics.jsonl is not a file" in refused.err


def test_lines_that_were_edited_are_reported_by_resume(cli, runs):
    path = runs / "ae" / "metrics.jsonl"
    path.write_text(re.sub(r'"loss": [0-9.]+', '"loss": 1.5', path.read_text()))
    resumed = cli("train", "--resume", runs / "ae", "--epochs", "9")
    assert resumed.code == 0
    assert "were edited after training" in resumed.err


def test_the_damage_of_the_only_checkpoint_suggests_no_other(cli, runs):
    [*others, last] = sorted((runs / "ae" / "checkpoints").glob("step-*"))
    (last / "state.json").unlink()
    for other in others:
        shutil.rmtree(other)
    refused = cli("evaluate", runs / "ae")
    assert refused.code == 1
    assert "restore it from a copy, or start a new run" in refused.err


def test_wrong_values_per_dimension_are_named(cli, runs):
    path = runs / "ae" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "per_dim": {"kl": "x"}}))
    refused = cli("report", runs / "ae")
    assert refused.code == 4
    assert "per_dim.kl" in refused.err
