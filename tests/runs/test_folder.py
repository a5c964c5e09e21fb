"""The run folder: created once, never overwritten, and validated when read."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from latentforge import Forge, Run, open_run
from latentforge.cli.app import run as run_cli
from latentforge.errors import MissingError, RunFailed, UsageError
from latentforge.io.paths import append_json_line, create_numbered_folder, write_json
from latentforge.runs.folder import (
    LOCK,
    create_run_folder,
    find_run_folders,
    lock_run,
    read_manifest,
)

# ---------------------------------------------------------------- a new folder


def test_the_requested_folder_is_created_with_its_parents(tmp_path):
    requested = tmp_path / "a" / "b"
    assert create_run_folder(requested, tmp_path / "runs", "ae-digits") == requested
    assert requested.is_dir()
    assert not (tmp_path / "runs").exists()


def test_an_empty_folder_is_accepted(tmp_path):
    assert create_run_folder(tmp_path, tmp_path / "runs", "ae-digits") == tmp_path


def test_the_files_of_a_run_that_was_killed_at_its_start_do_not_count(tmp_path):
    for name in (LOCK, ".run.json.17-ab", ".metrics.jsonl.17-ab"):
        (tmp_path / name).touch()
    assert create_run_folder(tmp_path, tmp_path / "runs", "ae-digits") == tmp_path
    run = Forge().train("ae", train={"epochs": 1}, run=tmp_path, quiet=True)
    assert run.status == "done"


def test_a_folder_that_is_being_created_is_not_taken(tmp_path):
    with lock_run(tmp_path), pytest.raises(UsageError, match="another process is training"):
        Forge().train("ae", train={"epochs": 1}, run=tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] in ([LOCK], [])


def test_default_folders_are_numbered_and_gaps_are_filled(tmp_path):
    made = [create_run_folder(None, tmp_path / "runs", "ae-digits").name for _ in range(3)]
    assert made == ["ae-digits-1", "ae-digits-2", "ae-digits-3"]
    (tmp_path / "runs" / "ae-digits-2").rmdir()
    (tmp_path / "runs" / "ae-digits-4").write_text("a file takes a number too")
    made = [create_run_folder(None, tmp_path / "runs", "ae-digits").name for _ in range(2)]
    assert made == ["ae-digits-2", "ae-digits-5"]


def test_concurrent_threads_get_different_folders(tmp_path):
    made: list[Path] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        made.extend(create_numbered_folder(tmp_path / "runs", "ae-", 1) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name[3:]) for path in made) == list(range(1, 161))


def test_a_folder_that_contains_a_run_is_refused(runs):
    before = (runs / "ae" / "run.json").read_bytes()
    with pytest.raises(UsageError, match="already contains a run") as caught:
        create_run_folder(runs / "ae", runs, "ae")
    assert "another --run" in caught.value.hint
    assert (runs / "ae" / "run.json").read_bytes() == before


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for requested in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match=r"is not empty|is a file") as caught:
            create_run_folder(requested, tmp_path / "runs", "ae")
        assert caught.value.hint == "choose another folder"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for requested, root in (
        (tmp_path / "file" / "run", tmp_path),
        (None, tmp_path / "file" / "runs"),
    ):
        with pytest.raises(RunFailed, match="cannot write to") as caught:
            create_run_folder(requested, root, "ae")
        assert str(requested or root) in caught.value.message
        assert caught.value.exit_code == 1


# ---------------------------------------------------------------- run.json


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"format": 1',
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b"{}",
        b'{"a": 1}',
        b"[" * 10**5,
    ],
)
def test_an_unreadable_or_invalid_manifest_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(MissingError) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path / "run.json") in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"config": 3},
        {"config": {}},
        {"config": {"model": "ae", "data": "digits"}},
        {"metrics": 3},
        {"metrics": {"test": 3}},
        {"data": []},
        {"plugins": 3},
        {"plugins": ["ae"]},
    ],
)
def test_a_manifest_with_fields_of_the_wrong_type_is_named(runs, changes):
    manifest = json.loads((runs / "ae" / "run.json").read_text())
    (runs / "ae" / "run.json").write_text(json.dumps({**manifest, **changes}))
    with pytest.raises(MissingError) as caught:
        read_manifest(runs / "ae")
    assert str(runs / "ae" / "run.json") in caught.value.message


def test_a_manifest_of_a_newer_format_suggests_an_upgrade(runs):
    manifest = json.loads((runs / "ae" / "run.json").read_text())
    (runs / "ae" / "run.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(
        MissingError, match="has format 2; this version of LatentForge reads 1"
    ) as caught:
        read_manifest(runs / "ae")
    assert caught.value.hint == "pip install --upgrade latentforge"


def test_the_runs_of_a_folder_are_listed_by_name(runs):
    (runs / "empty").mkdir()
    (runs / "file").write_text("")
    shutil.copytree(runs / "ae", runs / "b")
    assert [path.name for path in find_run_folders(runs)] == ["ae", "b", "cnn"]
    assert list(find_run_folders(runs / "nowhere")) == []


# ---------------------------------------------------------------- writing


def test_a_manifest_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"status": "running"})
    with pytest.raises((TypeError, ValueError, RunFailed)):
        write_json(path, {"status": object()})
    assert json.loads(path.read_text()) == {"status": "running"}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_readers_never_see_a_partial_manifest(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"n": 0, "long": "x" * 100_000})
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(len(json.loads(path.read_text())["long"]))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(50):
        write_json(path, {"n": n, "long": "x" * 100_000})
    done.set()
    reader.join()
    assert set(seen) == {100_000}
    assert json.loads(path.read_text())["n"] == 49


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(RunFailed, match=r"cannot write to .*run\.json"):
        write_json(tmp_path / "run.json", {})
    with pytest.raises(RunFailed, match=r"cannot write to .*run\.json"):
        append_json_line(tmp_path / "run.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


# ---------------------------------------------------------------- a run


def test_a_finished_run_has_status_metrics_and_config(trained):
    run = open_run(trained / "ae")
    assert isinstance(run, Run)
    assert (run.status, run.name, run.path) == ("done", "ae", trained / "ae")
    assert set(run.metrics) == {"train", "validation", "test"}
    assert run.metrics["test"]["bce_per_pixel"] == pytest.approx(
        run.metrics["test"]["recon"] / 784, rel=1e-4
    )
    assert run.config["model"]["latent_dim"] == 4
    assert repr(run) == f"Run({str(trained / 'ae')!r}, status='done')"


def test_the_manifest_stores_data_plugins_and_environment(trained):
    manifest = open_run(trained / "ae").manifest
    assert manifest["data"]["images"] == {"train": 1294, "validation": 144, "test": 359}
    assert manifest["data"]["classes"] == list("0123456789")
    assert len(manifest["data"]["fingerprint"]) == 64
    assert manifest["data"]["preprocessing"]
    assert {(p["kind"], p["name"], p["plugin"]) for p in manifest["plugins"]} == {
        ("models", "ae", "autoencoder"),
        ("losses", "reconstruction", "reconstruction"),
        ("datasets", "digits", "digits"),
    }
    assert {"python", "torch", "ignite", "device", "threads"} <= set(manifest["environment"])
    assert manifest["config"]["train"]["seed"] == 0
    assert manifest["created"] <= manifest["ended"]


def test_the_history_has_one_line_per_epoch(trained):
    run = open_run(trained / "ae")
    lines = run.history()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["step"] for line in lines] == [11, 22, 33]
    losses = [line["train"]["loss"] for line in lines]
    assert losses[0] > losses[1] > losses[2]
    assert lines[-1]["test"] == run.metrics["test"]
    assert "test" not in lines[0]


def test_the_summary_has_counts_status_and_throughput(trained):
    summary = open_run(trained / "ae").summary()
    assert (summary["epochs"], summary["steps"], summary["status"]) == (3, 33, "done")
    assert summary["images_per_second"] == pytest.approx(3 * 1294 / summary["seconds"], rel=0.05)


def test_the_best_and_the_last_model_load_in_evaluation_mode(trained):
    run = open_run(trained / "ae")
    for checkpoint in ("last", "best"):
        model = run.load_model(checkpoint)
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_a_run_evaluates_to_the_metrics_of_its_training(runs):
    run = open_run(runs / "ae")
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-5)
    assert run.evaluate("validation") == pytest.approx(run.metrics["validation"], rel=1e-5)
    (first, second) = (runs / "ae" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(first)["metrics"] == pytest.approx(run.metrics["test"], rel=1e-5)
    assert json.loads(second)["split"] == "validation"


def test_a_run_without_a_metrics_file_has_no_history(runs):
    run = Forge().open_run(runs / "ae")
    (runs / "ae" / "metrics.jsonl").unlink()
    assert run.history() == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"epoch": 1', "Expecting ',' delimiter"),
        ("[]", "line 1: Input should be"),
        ('{"epoch": 1, "step": 1, "train": {}, "validation": "nan"}', "line 1: validation: "),
        ('{"epoch": 1, "step": 1, "train": {"loss": "1"}}', r"line 1: train\.loss: "),
        ('{"epoch": 1, "step": 1}', "line 1: train: Field required"),
    ],
)
def test_damaged_history_is_named(runs, line, fault):
    (runs / "ae" / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(RunFailed, match=rf"ae/metrics\.jsonl is damaged: {fault}"):
        open_run(runs / "ae").history()


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", "evaluations.jsonl"])
def test_an_edited_metric_is_reported(runs, capsys, file):
    open_run(runs / "ae").evaluate()
    path = runs / "ae" / file
    assert run_cli(["report", str(runs / "ae")]) == 0
    assert "edited" not in capsys.readouterr().err
    edited, count = re.subn(r'"loss": [\d.]+', '"loss": 1.5', path.read_text())
    assert count
    path.write_text(edited)
    assert run_cli(["report", str(runs / "ae")]) == 0
    assert re.search(rf"{file}.* was edited after", capsys.readouterr().err)


def test_equal_runs_have_equal_checksums(work):
    train = partial(Forge().train, "ae", data=torch.rand(30, 1, 4, 4), quiet=True)
    one, other, longer = (train(train={"epochs": epochs}).manifest for epochs in (1, 1, 2))
    assert one["checksum"] == other["checksum"] != longer["checksum"]


def test_full_disk_at_the_start_leaves_no_folder(work, monkeypatch):
    def fail(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    for start in (Forge().train, partial(Forge().sweep, grid={"train.seed": [0]})):
        with pytest.raises(RunFailed, match=r"cannot write to .*\.json: No space left on device"):
            start("ae", quiet=True)
    assert list(Path("runs").iterdir()) == []


def test_lock_that_cannot_be_created_is_an_error(runs):
    (runs / "ae" / LOCK).unlink(missing_ok=True)
    (runs / "ae" / LOCK).mkdir()
    with pytest.raises(RunFailed, match="cannot write to runs/ae: "):
        Forge().resume("runs/ae", quiet=True)


def test_temporary_files_of_a_killed_run_are_removed_when_training_starts(work):
    Path("r").mkdir()
    Path("r/.run.json.123").write_text("{")
    train = {"epochs": 1, "batch_size": 512}
    Forge().train("ae", model={"hidden": [4]}, train=train, run="r", quiet=True)
    assert not Path("r/.run.json.123").exists()


def test_doctor_explains_how_to_resume_a_killed_run(runs, cli):
    manifest = json.loads((runs / "ae" / "run.json").read_text())
    (runs / "ae" / "run.json").write_text(json.dumps({**manifest, "status": "running"}))
    (runs / "ae" / LOCK).unlink(missing_ok=True)
    assert open_run(runs / "ae").status == "killed"
    assert "latentforge train --resume runs/ae" in cli("doctor", "runs/ae").out
