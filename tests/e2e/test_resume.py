"""`latentforge train --resume` after signals, after completion, and when it must be refused."""

from __future__ import annotations

import json
import signal
import sys
import time

import pytest
import torch

from latentforge.runs.checkpoint import CheckpointStore

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
LINE = (
    *("train", "vae", "--set", "model.encoder=[32]", "--set", "model.decoder=[32]"),
    *("--epochs", 12, "--batch-size", 32, "--set", "train.checkpoint_every=7"),
    *("--set", "train.threads=1", "--set", "data.size=8", "--quiet"),
)


def weights(run):
    return CheckpointStore(run / "checkpoints").load().tensors("model")


def wait_for(process, happened) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_with_signal(process, work, number) -> str:
    """Sends a signal in the middle of the third epoch or later; returns stderr."""
    lines = work / "r" / "metrics.jsonl"
    wait_for(process, lambda: lines.exists() and lines.read_text().count("\n") >= 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return err


@pytest.mark.slow
@posix
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_run_ended_by_a_signal_resumes_to_the_same_weights(start, cli, work, number, code, word):
    process = start(*LINE, "--run", "r", before="pass")
    err = end_with_signal(process, work, number)
    assert process.returncode == code
    assert "Traceback" not in err
    status = json.loads((work / "r" / "run.json").read_text())["status"]
    assert status == ("interrupted" if word else "running")
    [listed] = cli("runs", ".", "--json").json["runs"]
    assert listed["status"] == ("interrupted" if word else "killed")
    if word:
        assert f"error: {word} at step" in err
        assert "try: latentforge train --resume r" in err
    assert cli("evaluate", "r").code == 0

    resumed = cli("train", "--resume", "r", "--quiet", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["status"] == "done"
    assert cli(*LINE, "--run", "whole").code == 0
    ours, whole = weights(work / "r"), weights(work / "whole")
    assert all(torch.equal(ours[name], value) for name, value in whole.items())


@pytest.mark.slow
@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_second_signal_stops_immediately(start, work, number, code):
    """In a step of one minute, the first signal requests a stop and the second one forces it."""
    (work / "slow.py").write_text(SLOW)
    line = ("-p", "./slow.py", *LINE, "--callback", "slow", "--run", "r", "--json")
    process = start(*line, before="pass")
    for file in ("asleep", "heard"):
        wait_for(process, (work / file).exists)
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert not (work / "awake").exists()
    assert "Traceback" not in err
    assert (work / "r" / "checkpoints" / "LATEST").read_text().split()[0] == "step-00000007"
    if number == signal.SIGINT:
        said = json.loads(out)
        assert (said["status"], said["run"], said["exit_code"]) == ("interrupted", "r", 130)
        assert json.loads((work / "r" / "run.json").read_text())["status"] == "interrupted"


SLOW = """
import time
from pathlib import Path
from latentforge import CallbackSpec, hookimpl

class Slow:
    def attach(self, engines):
        from ignite.engine import Events

        @engines.trainer.on(Events.ITERATION_COMPLETED(once=9))
        def sleep(engine):
            Path("asleep").touch()
            for _ in range(600):
                time.sleep(0.1)
                if engine.should_terminate:
                    Path("heard").touch()
            Path("awake").touch()

@hookimpl
def latentforge_callbacks():
    yield CallbackSpec(name="slow", summary="Sleeps", build=lambda config: Slow())
"""


def test_resume_with_more_epochs_extends_a_finished_run(cli, runs):
    before = json.loads((runs / "ae" / "run.json").read_text())["epochs"]
    refused = cli("train", "--resume", "runs/ae")
    assert refused.code == 2
    assert f"runs/ae has already been trained for {before} epochs" in refused.err
    assert f"try: --epochs {2 * before}" in refused.err
    more = cli("train", "--resume", "runs/ae", "--epochs", before + 1, "--json")
    assert more.code == 0, more.err
    assert "resumed after step" in more.err
    assert (more.json["status"], more.json["epochs"]) == ("done", before + 1)
    lines = (runs / "ae" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [*range(1, before + 2)]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "train vae --resume runs/ae",
            2,
            "--resume continues runs/ae with its stored options; remove vae",
        ),
        ("train --resume runs/ae --run other", 2, "with its stored options; remove other"),
        (
            "train --resume runs/ae --preset vanilla-ae",
            2,
            "with its stored options; remove vanilla-ae",
        ),
        ("train --resume runs/ae --lr 0.5 --epochs 99", 2, "train.lr: 0.003 in the run, not 0.5"),
        ("train --resume runs/ae --data mnist --epochs 99", 2, 'data.name: "digits" in the run'),
        ("train --resume runs/nothing", 4, "no run at runs/nothing"),
        ("train --resume runs/ae --from step-9 --epochs 99", 4, "no checkpoint"),
        ("train --resume runs/ae --epochs 1", 2, "can be raised"),
        ("train ae --from best", 2, "--from requires --resume"),
    ],
)
def test_invalid_resume_request_is_refused_and_changes_nothing(cli, runs, line, code, said):
    before = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file() and p.name != ".lock"}
    answer = cli(*line.split(), "--quiet")
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err
    after = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
