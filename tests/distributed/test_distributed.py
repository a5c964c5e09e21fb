"""Several processes under torchrun train the run that one process trains, and end together."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.folder import status_of

WORKER = Path(__file__).parent / "worker.py"
AE = ["train", "ae", "--set", "model.hidden=[16]", "--set", "model.latent_dim=3"]

spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
worker = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not torch.distributed.is_available(),
    reason="torchrun with gloo, and children by /proc",
)


def launch(count, *arguments, cwd=None):
    """torchrun with so many processes, on a port that is free."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", str(count), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(started, seconds=100):
    try:
        out, err = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for child in children(started):
            os.kill(child, signal.SIGKILL)
        started.kill()
        raise
    return started.returncode, out, err


def children(started):
    return [
        int(n) for n in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    ]


def told(folder, rank):
    return (folder / f"said-{rank}").read_text().splitlines()


def losses(run):
    """Every scalar of every step, as TensorBoard has them."""
    board = EventAccumulator(str(run)).Reload()
    return {
        tag: [event.value for event in board.Scalars(tag)]
        for tag in board.Tags()["scalars"]
        if "images_per_second" not in tag
    }


def tensors(run):
    saved = CheckpointStore(Path(run) / "checkpoints").load()
    return {
        f"{group}/{name}": value
        for group in saved.groups
        for name, value in saved.tensors(group).items()
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What two and three processes leave of the same trainings, each group in one go."""
    folders = {}
    for count in (2, 3):
        folders[count] = tmp_path_factory.mktemp(f"of-{count}")
        code, _, err = ended(launch(count, WORKER, folders[count]))
        assert (code == 0) == (count == 2), err  # of three, one is killed at the end
    return folders


@pytest.fixture(scope="module")
def alone(tmp_path_factory):

    def trained(way, **options):
        return worker.train(tmp_path_factory.mktemp("alone") / way, way, **options).path

    return trained


# ---------------------------------------------------------------- the same run


@pytest.mark.parametrize("way", worker.PLAIN)
def test_every_step_is_that_of_one_process(shared, alone, way):
    """Also the last of each epoch, whose one image leaves the other processes without any."""
    one = alone(way)
    expected, weights = losses(one), tensors(one)
    assert len(expected["step/loss"]) == worker.EPOCHS * worker.STEPS
    for folder in shared.values():
        found = losses(folder / way)
        assert found.keys() == expected.keys()
        for tag, values in expected.items():
            assert found[tag] == pytest.approx(values, rel=1e-5, abs=1e-5), tag
        for name, value in tensors(folder / way).items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5)


def test_a_process_by_itself_joins_nothing(alone, monkeypatch):
    """Also beside what other launchers say."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    assert (alone("ae") / "run.json").exists()
    assert not torch.distributed.is_initialized()
    assert not {"latentforge.runtime.process_group", "latentforge.engine.data_parallel"} & {
        *sys.modules
    }


def test_all_processes_return_the_same_figures(shared):
    for count, folder in shared.items():
        first, *others = [told(folder, rank)[: len(worker.PLAIN)] for rank in range(count)]
        assert len(first) == len(worker.PLAIN)
        assert all(other == first for other in others)


def test_no_thread_is_left_that_could_abort_the_process(shared):
    for rank in (0, 1):
        assert told(shared[2], rank)[-1] == '["threads", []]'


def test_batch_norm_keeps_the_statistics_of_all_images(shared, alone):
    """Those of the first layer, whose input no other layer has normalised."""
    one = tensors(alone("conv-vae", batch_size=40, epochs=1))
    two = tensors(shared[2] / "one-step")
    name = "model/encoder.2.running_mean"
    torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
    assert one[name].abs().max() > 1e-3


def test_a_stranger_draws_in_each_process_what_it_does_not_draw_in_the_others(shared):
    wanted = re.compile('."(own|common)"').match
    said = [dict(map(json.loads, filter(wanted, told(shared[2], rank)))) for rank in (0, 1)]
    assert said[0]["common"] == said[1]["common"]
    assert said[0]["own"] != said[1]["own"]
    assert said[0]["own"] != said[0]["common"]


# ---------------------------------------------------------------- one end


def test_a_callback_that_ends_one_process_ends_all_at_its_step(shared):
    expected = json.dumps(["ended", worker.STEPS + 2, "a callback ended the training"])
    for rank in (0, 1):
        assert expected in told(shared[2], rank)


@pytest.mark.parametrize("way", ["beta-vae", *worker.OWN])
def test_a_signal_to_one_ends_all_and_the_resumed_run_is_the_one_that_never_stopped(shared, way):
    for rank in (0, 1):
        assert f"{way} terminated at step {worker.STEPS + 2}" in told(shared[2], rank)
    whole, resumed = tensors(shared[2] / f"{way}-whole"), tensors(shared[2] / f"{way}-resumed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_another_number_of_processes_may_go_on_and_is_said(shared, tmp_path, caplog):
    """Its bits are other ones, its figures the same."""
    run = shutil.copytree(shared[2] / "ae", tmp_path / "ae")
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["environment"]["processes"] == 2
    made = worker.FORGE.resume(run, data=worker.data(), train={"epochs": 4}, quiet=True)
    assert "processes: 2 before, 1 now" in caplog.text
    assert made.manifest["resumed"][0]["processes"] == 1
    assert made.manifest["steps"] == 4 * worker.STEPS


def test_a_batch_smaller_than_the_processes_is_refused_in_all(shared):
    for rank in (0, 1):
        assert "a batch of 1 images cannot be split over 2 processes" in told(shared[2], rank)


def test_a_folder_that_is_taken_is_refused_in_all(shared):
    """The first process alone looks."""
    for rank in (0, 1):
        assert any(line.endswith("ae already contains a run") for line in told(shared[2], rank))


def test_a_loss_that_is_not_finite_is_found_by_all_at_the_same_step(shared):
    said = ["\n".join(told(shared[2], rank)).partition("the loss became")[2] for rank in (0, 1)]
    assert re.search(r"step \d+", said[0])
    assert "largest gradient" in said[0]
    assert said[0] == said[1]


def test_a_process_that_is_killed_ends_the_run_with_a_message(shared):
    """The two that are left are not stuck; the first one writes what happened and what to do."""
    run = shared[3] / "killed"
    what = rf"another process has ended or does not respond \(after step {worker.STEPS + 1}\)"
    for rank in (0, 1):
        assert any(re.match(what, line) for line in told(shared[3], rank))
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "failed"
    assert re.match(what, manifest["error"])
    assert f"try: torchrun ... -m -- latentforge train --resume {run}" in manifest["error"]
    assert CheckpointStore(run / "checkpoints").load().state["processes"] == 3


# ---------------------------------------------------------------- the command line


@pytest.mark.slow  # a torchrun of its own
def test_only_the_first_process_writes_and_speaks(tmp_path):
    """A run that takes its name by itself, and warns; stdout is one JSON object."""
    line = ["train", "conv-vae", "--set", "model.channels=[4, 3]", "--set", "model.hidden=8"]
    started = launch(2, "-m", "--", "latentforge", *line, "--epochs", 1, "--json", cwd=tmp_path)
    code, out, err = ended(started)
    assert code == 0, err
    assert json.loads(out)["status"] == "done"
    [run] = (tmp_path / "runs").iterdir()
    assert len(list(run.glob("events.*"))) == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert err.count("epoch 1/1") == 1
    assert err.count("batch norm: each of 2 processes normalises with its own 32 of 64") == 1


def test_what_is_wrong_with_a_request_is_said_once(tmp_path):
    started = launch(3, "-m", "--", "latentforge", *AE, "--epochs", "none", cwd=tmp_path)
    code, out, err = ended(started)
    assert code
    assert out == ""
    assert err.count("error:") == 1
    assert err.count("train.epochs") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # a torchrun of its own
def test_other_commands_are_of_one_process(tmp_path):
    code, _, err = ended(launch(2, "-m", "--", "latentforge", "demo", cwd=tmp_path))
    assert code
    [line] = re.findall("error: .*", err)
    assert line == "error: only `train` supports torchrun; demo runs in a single process"


@pytest.fixture
def training(tmp_path):
    """A long run of two processes, when it has its first checkpoint: torchrun, the run's folder,
    and the processes in order."""
    line = [*AE, "--epochs", 100_000, "--run", "run", "--quiet"]
    started = launch(2, "-m", "--", "latentforge", *line, cwd=tmp_path)
    run = tmp_path / "run"
    until = time.monotonic() + 60
    while not (run / "checkpoints" / "LATEST").exists():
        assert time.monotonic() < until
        assert started.poll() is None
        time.sleep(0.1)
    [events] = run.glob("events.*")
    first = int(events.name.rpartition(".")[2])
    yield started, run, sorted(children(started), key=lambda child: child != first)
    if started.poll() is None:
        started.kill()


@pytest.mark.slow  # a torchrun of its own
def test_where_the_first_process_is_killed_another_one_says_so(training):
    started, run, processes = training
    os.kill(processes[0], signal.SIGKILL)
    code, _, err = ended(started)
    assert code
    assert status_of(run, json.loads((run / "run.json").read_text())) == "killed"
    assert "error: another process has ended or does not respond" in err
    assert "process 1: " in err
    assert "try: torchrun ... -m -- latentforge train --resume run" in err


@pytest.mark.slow  # a torchrun of its own
def test_a_scheduler_that_ends_torchrun_ends_the_run_with_a_checkpoint(training):
    started, run, _ = training
    started.send_signal(signal.SIGTERM)
    _, _, err = ended(started)
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert len(re.findall("error: terminated at step", err)) == 1
    saved = CheckpointStore(run / "checkpoints").load()
    assert saved.state["step"] == manifest["steps"]
    assert saved.state["step"] % saved.state["total_steps"]
