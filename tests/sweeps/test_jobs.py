"""Members in worker processes: results, signals, killed workers and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from latentforge_plugins import elbo

from latentforge import Forge
from latentforge.errors import UsageError
from latentforge.sweeps.worker import handle_request

from .stored import read, wait_until

TINY = ["ae", "--set=model.hidden=[16]", "--no-together", "--jobs=2"]
LONG = [*TINY, "--batch-size=16", "--epochs=400", "--grid=model.latent_dim=[2, 3]", "--out=s"]
FIRST, SECOND = "1-latent_dim=2", "2-latent_dim=3"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def workers_of(parent):
    """Returns the ids of the worker processes of a sweep, from `ps`."""
    text = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in text.splitlines()]
    return [int(pid) for pid, of, args in rows if int(of) == parent and "sweeps.worker" in args]


def is_alive(pid):
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def shorten(folder):
    """Edits the members so that each trains only two more epochs."""
    for path in folder.glob("*/run.json"):
        manifest = read(path)
        manifest["config"]["train"]["epochs"] = manifest["epochs"] + 2
        path.write_text(json.dumps(manifest), "utf-8")


@pytest.fixture
def running(start, work):
    """A running sweep of two long members, each with one finished epoch."""
    started = start("sweep", *LONG)
    try:
        for name in (FIRST, SECOND):
            wait_until((work / "s" / name / "checkpoints/LATEST").exists)
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.mark.slow
def test_worker_processes_give_the_metrics_of_a_single_process(process, cli, work):
    words = ["sweep", *TINY, "--epochs=2", "--batch-size=256", "--set=train.optimizer=sgd"]
    grid = "--grid=train.lr=[1e30, 1e-3, 1e-2]"
    answer = process(*words, grid, "--out=several", "--json")
    assert answer.code == 1, answer.err
    assert [member["status"] for member in answer.json["members"]] == ["failed", "done", "done"]
    assert "became nan" in answer.json["members"][0]["error"]
    ends = [line for line in answer.err.splitlines() if ": done; " in line]
    assert len(ends) == 2
    assert cli(*words, grid, "--jobs=1", "--out=one", "--quiet").code == 1
    for name in ("2-lr=0.001", "3-lr=0.01"):
        one, other = (read(work / folder / name / "run.json") for folder in ("one", "several"))
        assert one["environment"]["threads"] == other["environment"]["threads"] == 1
        assert one["metrics"] == other["metrics"]
    assert (work / "several/report.html").exists()


@pytest.mark.slow  # two processes and their imports
def test_progress_of_members_in_other_processes_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("latentforge.sweeps.runner.PROGRESS_INTERVAL", 0.0)
    train, grid = {"epochs": 2, "batch_size": 256}, {"model.latent_dim": [2, 3]}
    Forge().sweep("ae", train=train, grid=grid, jobs=2, out=tmp_path / "s")
    said = capsys.readouterr().err.splitlines()
    assert f"{FIRST}: epoch 0 of 2; {SECOND}: epoch 0 of 2" in said


@pytest.mark.slow  # two processes and their imports
def test_warning_of_a_worker_is_printed_once_with_the_member_name(cli, work):
    np.save("x.npy", np.random.default_rng(0).random((60, 6, 6), np.float32) / 10)
    words = ["sweep", *TINY, "--data=arrays", "--set=data.path=x.npy", "--epochs=1", "--quiet"]
    answer = cli(*words, "--grid=train.seed=[0, 1]", "--out=s")
    assert answer.code == 0, answer.err
    for name in ("1-seed=0", "2-seed=1"):
        [line] = [line for line in answer.err.splitlines() if name in line]
        assert line.count("warning: ") == 1
        assert line.startswith(f"warning: {name}: ")


@pytest.mark.slow  # a process and its imports
def test_hints_of_a_worker_are_commands_on_the_command_line(cli, work):
    np.save("x.npy", np.zeros((60, 6, 6), np.float32))
    words = ["sweep", *TINY, "--data=arrays", "--set=data.path=x.npy", "--epochs=1", "--quiet"]
    answer = cli(*words, "--grid=train.seed=[0]", "--out=s")
    assert answer.code == 0, answer.err
    assert "look at the data: `latentforge data show arrays --set data.path=" in answer.err


@pytest.mark.slow  # three processes and their imports
def test_threads_are_divided_among_workers_unless_set(process, work):
    words = ["sweep", *TINY, "--epochs=1", "--batch-size=256", "--quiet"]
    env = {"OMP_NUM_THREADS": "2"}
    assert process(*words, "--grid=train.threads=[0, 2]", "--out=s", env=env).code == 0
    runs = [read(work / "s" / name / "run.json") for name in ("1-threads=0", "2-threads=2")]
    assert [run["environment"]["threads"] for run in runs] == [1, 2]


@pytest.mark.slow  # a network with convolutions
def test_stacked_group_is_one_job_and_other_members_are_single_jobs(tmp_path):
    made = Forge().sweep(
        "cnn-classifier",
        train={"epochs": 1, "batch_size": 512},
        grid={"train.seed": [0, 1]},
        jobs=2,
        out=tmp_path / "cnn",
        quiet=True,
    )
    assert [member["status"] for member in made.members] == ["done", "done"]
    assert all("Conv2d" in member["alone_because"] for member in made.members)
    made = Forge().sweep(
        "ae",
        train={"epochs": 1, "batch_size": 512},
        grid={"train.seed": [0, 1]},
        jobs=2,
        out=tmp_path / "ae",
        quiet=True,
    )
    assert [run.manifest["together_with"] for run in made.runs()] == [["2-seed=1"], ["1-seed=0"]]


@pytest.mark.slow  # five processes and their imports
def test_killed_worker_fails_only_its_member_which_can_be_resumed(running, cli, work):
    killed, other = workers_of(running.pid)
    os.kill(killed, signal.SIGKILL)

    def statuses_now():
        return {member["status"]: member for member in read(work / "s/sweep.json")["members"]}

    wait_until(lambda: "killed" in statuses_now())
    statuses = statuses_now()
    assert set(statuses) == {"killed", "running"}
    assert statuses["killed"]["error"] == "its process was killed by SIGKILL"
    assert is_alive(other)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 143, err
    assert "latentforge sweep --resume s" in err
    assert "Traceback" not in err
    assert not is_alive(other)
    stopped = read(work / "s" / statuses["running"]["name"] / "run.json")
    assert stopped["status"] == "interrupted"
    name = statuses["killed"]["name"]
    assert f"{name} failed: its process was killed by SIGKILL" in err
    shorten(work / "s")
    answer = cli("sweep", "--resume", "s", "--quiet")  # uses the stored number of jobs
    assert answer.code == 0, answer.err
    assert read(work / "s" / name / "run.json")["resumed"][0]["step"] > 0
    resumed = read(work / "s" / statuses["running"]["name"] / "run.json")
    assert resumed["resumed"][0]["step"] == stopped["steps"] > 0


@pytest.mark.slow  # five processes and their imports
def test_interrupt_stops_all_workers_at_a_checkpoint_and_resume_works(running, cli, work):
    """The test of a killed worker sends SIGTERM."""
    pids = workers_of(running.pid)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "latentforge sweep --resume s" in err
    assert "Traceback" not in err
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
    runs = [read(work / "s" / name / "run.json") for name in (FIRST, SECOND)]
    assert [run["status"] for run in runs] == ["interrupted", "interrupted"]
    shorten(work / "s")
    answer = cli("sweep", "--resume", "s", "--jobs=2", "--quiet")
    assert answer.code == 0, answer.err
    for name, was in zip((FIRST, SECOND), runs, strict=True):
        now = read(work / "s" / name / "run.json")
        assert now["status"] == "done"
        assert now["resumed"][0]["step"] == was["steps"] > 0
    assert [m["status"] for m in read(work / "s/sweep.json")["members"]] == ["done", "done"]


@pytest.mark.slow  # three processes and their imports
def test_workers_exit_when_the_sweep_process_is_killed(running, work):
    pids = workers_of(running.pid)
    running.kill()
    running.wait()
    wait_until(lambda: not any(map(is_alive, pids)))
    runs = [read(work / "s" / name / "run.json") for name in (FIRST, SECOND)]
    assert [run["status"] for run in runs] == ["interrupted", "interrupted"]


@pytest.mark.slow  # three processes and their imports
def test_unwritable_record_stops_the_other_worker_at_a_checkpoint(running, work):
    """Training progress is not lost when the record cannot be written."""
    killed, other = workers_of(running.pid)
    (work / "s/sweep.json").unlink()
    (work / "s/sweep.json").mkdir()
    os.kill(killed, signal.SIGKILL)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    assert "cannot write to s/sweep.json" in err
    assert not is_alive(other)
    runs = [read(work / "s" / name / "run.json") for name in (FIRST, SECOND)]
    assert sorted(run["status"] for run in runs) == ["interrupted", "running"]


SCRIPT = """
from latentforge import Forge
made = Forge(["beside"]).sweep(
    "mine",
    train={"epochs": 1, "batch_size": 512},
    grid={"model.latent_dim": [2, 3]},
    jobs=2,
    out="s",
    quiet=True,
)
print([member["error"] for member in made.members])
"""
BESIDE = """
from latentforge import ModelSpec, hookimpl
from latentforge_plugins.autoencoder import AutoencoderConfig, build

@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="mine",
        summary="-",
        build=build,
        config=AutoencoderConfig,
        provides={"encode", "decode", "decode_logits"},
        default_loss="reconstruction",
    )
"""


@pytest.mark.slow  # three processes and their imports
def test_workers_import_from_the_script_folder_not_the_working_folder(work, tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "script.py").write_text(SCRIPT, "utf-8")
    (scripts / "beside.py").write_text(BESIDE, "utf-8")
    (work / "queue.py").write_text("raise SystemExit('this is no module of Python')", "utf-8")
    done = subprocess.run(
        [sys.executable, scripts / "script.py"], cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['', '']"


def test_plugin_missing_in_a_worker_is_an_error_of_its_members(tmp_path):
    replies = []
    members = [["1-seed=0", {"train.seed": 0}], ["2-seed=1", {"train.seed": 1}]]
    asked = {"plugins": ["no_such_module"], "off": [], "discover": True, "members": members}
    handle_request({**asked, "sweep": str(tmp_path)}, lambda **said: replies.append(said))
    *failures, last = replies
    assert [(said["name"], said["status"]) for said in failures] == [
        ("1-seed=0", "failed"),
        ("2-seed=1", "failed"),
    ]
    assert all("plugin no_such_module cannot be loaded" in said["error"] for said in failures)
    assert last == {"ended": True, "reason": ""}


def test_jobs_refuses_data_and_plugins_that_workers_cannot_load(tmp_path, cli):
    out = tmp_path / "s"
    grid = {"train.seed": [0, 1]}
    with pytest.raises(UsageError, match="do not have the data passed in Python"):
        Forge().sweep("ae", data=torch.rand(20, 4, 4), grid=grid, jobs=2, out=out)
    with pytest.raises(UsageError, match="cannot load the Python object") as caught:
        Forge([elbo], off=["elbo"]).sweep("ae", grid=grid, jobs=2, out=out)
    assert "jobs=1" in caught.value.hint
    with pytest.raises(UsageError, match="must be at least 1"):
        Forge().sweep("ae", grid=grid, jobs=0, out=out)
    assert not out.exists()
    assert cli("sweep", "ae", "--grid=train.seed=[0]", "--jobs=0").code == 2
