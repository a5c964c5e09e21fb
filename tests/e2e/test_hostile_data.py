"""Data that is no file or fills the memory, long logs, wrong fields, and two runs in a folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from latentforge import Forge, open_run
from latentforge.io.checksum import add_checksum
from latentforge.rendering.report.formatting import read_objects
from latentforge.runs.folder import LOCK, METRICS, is_locked, lock_run

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes and links")


@posix
@pytest.mark.parametrize("name", ["pipe.npz", "pipe.npy", "/dev/zero"])
def test_pipe_or_device_as_data_is_refused(cli, work, name):
    if not name.startswith("/"):
        os.mkfifo(name)
    answer = cli("data", "show", "arrays", "--set", f"path={name}")
    assert answer.code == 2
    assert "is not a regular file" in answer.err


def save_images_and_pipe(extension):
    Path("images").mkdir()
    for i in range(10):
        Image.fromarray(np.full((6, 5), 20 * i, np.uint8)).save(f"images/{i}.{extension}")
    os.mkfifo(f"images/pipe.{extension}")


@posix
def test_pipes_among_the_images_of_a_folder_are_counted_or_refused(cli, work):
    save_images_and_pipe("png")
    shown = cli("data", "show", "folder", "--set", "root=images")
    assert shown.code == 0
    assert "1 file is not read: 1 that are no regular files" in shown.err
    Path("images/link.png").symlink_to("pipe.png")
    refused = cli("data", "show", "folder", "--set", "root=images")
    assert refused.code == 2
    assert "link.png: ValueError: it is not a regular file" in refused.err


def test_archive_that_needs_more_memory_than_is_free_is_refused(cli, work, monkeypatch):
    np.savez_compressed("bomb.npz", x=np.zeros((100, 300, 300), np.uint8))  # 9 MB, 9 kB stored
    assert Path("bomb.npz").stat().st_size < 20_000
    free = SimpleNamespace(available=8_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    answer = cli("data", "show", "arrays", "--set", "path=bomb.npz")
    assert answer.code == 2
    assert "x takes 9 MB, but only 8 MB are free" in answer.err


def test_names_with_spaces_are_quoted_in_suggested_commands(cli, runs):
    moved = (runs / "ae").rename(runs / "my run; rm -r x")
    manifest = json.loads((moved / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps({**manifest, "status": "interrupted"}))
    answer = cli("doctor", moved)
    [line] = [line for line in answer.out.splitlines() if "--resume" in line]
    words = shlex.split(line.partition("try ")[2])
    assert words == ["latentforge", "train", "--resume", str(moved)]


def test_reader_of_the_status_does_not_keep_a_run_from_training(runs):
    run, stop = runs / "ae", threading.Event()

    def read_all_the_time():
        while not stop.is_set():
            is_locked(run)

    reader = threading.Thread(target=read_all_the_time)
    reader.start()
    try:
        for _ in range(50):
            with lock_run(run):
                assert is_locked(run)
    finally:
        stop.set()
        reader.join()


@posix
def test_pipe_in_place_of_the_lock_does_not_block(runs):
    run = runs / "ae"
    (run / LOCK).unlink(missing_ok=True)
    os.mkfifo(run / LOCK)
    assert not is_locked(run)


@posix
def test_pipe_in_place_of_the_evaluations_does_not_block(cli, runs):
    os.mkfifo(runs / "ae" / "evaluations.jsonl")
    answer = cli("evaluate", "runs/ae")
    assert answer.code == 0
    assert "evaluations.jsonl: it is not a regular file" in answer.err


@posix
def test_pipe_among_animations_does_not_block(cli, work):
    save_images_and_pipe("gif")
    line = ("data", "show", "folder", "--set", "root=images", "--set", "frames=all")
    assert "1 that are no regular files" in cli(*line).err


@pytest.mark.slow  # two processes and their imports
def test_of_two_trainings_into_one_folder_one_is_refused(start, work):
    line = ("train", "ae", "--epochs", "1", "--batch-size", "512", "--run", "r", "--quiet")
    both = [start(*line) for _ in range(2)]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in both]
    codes = sorted(code for *_, code in ends)
    assert codes == [0, 2]
    [err] = [err for _, err, code in ends if code]
    assert re.search("already contains a run|another process is training the run r", err)
    assert open_run(work / "r").status == "done"


def test_long_logs_are_read_in_little_memory(runs, cli):
    run = runs / "ae"
    [*_, last] = (run / METRICS).read_text().splitlines()
    line = json.loads(last)
    with (run / METRICS).open("a") as file:
        for number in range(40_000):
            later = {key: line[key] + 1 + number for key in ("epoch", "step")}
            file.write(json.dumps(add_checksum({**line, **later, "pad": "x" * 200})) + "\n")
    assert (run / METRICS).stat().st_size > 15e6
    tracemalloc.start()
    try:
        warnings: list[str] = []
        objects = read_objects(run / METRICS, warnings, most=2000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert warnings == []
    assert 1500 < len(objects) < 3000
    assert objects[-1]["epoch"] == line["epoch"] + 40_000
    assert peak < 10e6
    assert cli("report", run).code == 0
    resumed = Forge().resume(run, train={"epochs": 4}, quiet=True)
    assert [entry["epoch"] for entry in resumed.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("epochs", "10**400", "has 401 digits"),
        ("seconds", "NaN", "the number NaN is not finite"),
        ("epochs", '"three"', "epochs: Input should be a valid integer"),
        ("data", "[]", "data: Input should be"),
        ("metrics", '{"test": {"loss": {}}}', "metrics.test.loss: Input should be a valid number"),
        ("findings", '"none"', "findings: Input should be a valid list"),
        ("plugins", '[{"kind": "x", "name": "a", "plugin": "b"}]', "plugins.0.kind: String should"),
        ("protocol", '{"loss": 3}', "protocol.loss: Input should be a valid string"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "report", "doctor", "train --resume"])
def test_wrong_type_of_a_field_is_named(cli, runs, key, value, said, command):
    file = runs / "ae" / "run.json"
    manifest = {**json.loads(file.read_text()), key: "@"}
    value = "1" + "0" * 400 if value == "10**400" else value
    file.write_text(json.dumps(manifest).replace('"@"', value))
    answer = cli(*command.split(), "runs/ae")
    assert answer.code == 4
    assert said in answer.err
