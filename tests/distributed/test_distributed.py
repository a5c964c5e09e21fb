"""Several processes under torchrun train the run of one process and stop at the same step."""

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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not torch.distributed.is_available(),
        reason="needs torchrun with gloo, and /proc",
    ),
]


def launch(count, *arguments, cwd=None):
    """torchrun with `count` processes, on a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", str(count), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(started, seconds=100):
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


def lines(folder, rank):
    return (folder / f"messages-{rank}").read_text().splitlines()


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
    """The folders of two and of three processes after the same trainings."""
    folders = {}
    for count in (2, 3):
        folders[count] = tmp_path_factory.mktemp(f"of-{count}")
        code, _, err = wait_for(launch(count, WORKER, folders[count]))
        assert (code == 0) == (count == 2), err  # of three, one is killed at the end
    return folders


@pytest.fixture(scope="module")
def alone(tmp_path_factory):

    def trained(case, **options):
        return worker.train(tmp_path_factory.mktemp("alone") / case, case, **options).path

    return trained


# ---------------------------------------------------------------- the same run


@pytest.mark.parametrize("case", worker.PLAIN)
def test_every_step_equals_that_of_one_process(shared, alone, case):
    """Also the last step of each epoch, whose single image leaves other processes without any."""
    one = alone(case)
    expected, weights = losses(one), tensors(one)
    assert len(expected["step/loss"]) == worker.EPOCHS * worker.STEPS
    for folder in shared.values():
        found = losses(folder / case)
        assert found.keys() == expected.keys()
        for tag, values in expected.items():
            assert found[tag] == pytest.approx(values, rel=1e-5, abs=1e-5), tag
        for name, value in tensors(folder / case).items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5)


def test_a_single_process_joins_no_process_group(alone, monkeypatch):
    """Also with the environment variables of another launcher."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    assert (alone("ae") / "run.json").exists()
    assert not torch.distributed.is_initialized()
    assert not {"latentforge.runtime.process_group", "latentforge.engine.data_parallel"} & {
        *sys.modules
    }


def test_all_processes_return_the_same_metrics(shared):
    for count, folder in shared.items():
        first, *others = [lines(folder, rank)[: len(worker.PLAIN)] for rank in range(count)]
        assert len(first) == len(worker.PLAIN)
        assert all(other == first for other in others)


def test_no_gloo_thread_is_left_at_exit(shared):
    for rank in (0, 1):
        assert lines(shared[2], rank)[-1] == '["threads", []]'


def test_batch_norm_keeps_the_statistics_of_all_images(shared, alone):
    """Compares the first layer, whose input no other layer has normalised."""
    one = tensors(alone("conv-vae", batch_size=40, epochs=1))
    two = tensors(shared[2] / "one-step")
    name = "model/encoder.2.running_mean"
    torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
    assert one[name].abs().max() > 1e-3


def test_the_default_generator_differs_between_processes(shared):
    pattern = re.compile('."(own|common)"').match
    draws = [dict(map(json.loads, filter(pattern, lines(shared[2], rank)))) for rank in (0, 1)]
    assert draws[0]["common"] == draws[1]["common"]
    assert draws[0]["own"] != draws[1]["own"]
    assert draws[0]["own"] != draws[0]["common"]


# ---------------------------------------------------------------- stop and failure


def test_a_callback_that_stops_one_process_stops_all_at_its_step(shared):
    expected = json.dumps(["ended", worker.STEPS + 2, "a callback ended the training"])
    for rank in (0, 1):
        assert expected in lines(shared[2], rank)


@pytest.mark.parametrize("case", ["beta-vae", *worker.PER_PROCESS])
def test_a_signal_to_one_process_stops_all_and_resume_is_bit_identical(shared, case):
    for rank in (0, 1):
        assert f"{case} terminated at step {worker.STEPS + 2}" in lines(shared[2], rank)
    whole, resumed = tensors(shared[2] / f"{case}-whole"), tensors(shared[2] / f"{case}-resumed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_resume_with_another_number_of_processes_is_logged(shared, tmp_path, caplog):
    """The resumed run is then not bit-identical."""
    run = shutil.copytree(shared[2] / "ae", tmp_path / "ae")
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["environment"]["processes"] == 2
    made = worker.FORGE.resume(run, data=worker.data(), train={"epochs": 4}, quiet=True)
    assert "processes: 2 before, 1 now" in caplog.text
    assert made.manifest["resumed"][0]["processes"] == 1
    assert made.manifest["steps"] == 4 * worker.STEPS


def test_a_batch_smaller_than_the_world_size_is_refused_by_all(shared):
    for rank in (0, 1):
        assert "a batch of 1 images cannot be split over 2 processes" in lines(shared[2], rank)


def test_an_existing_run_folder_is_refused_by_all(shared):
    """Only the first process checks the folder."""
    for rank in (0, 1):
        assert any(line.endswith("ae already contains a run") for line in lines(shared[2], rank))


def test_all_processes_find_a_non_finite_loss_at_the_same_step(shared):
    found = ["\n".join(lines(shared[2], rank)).partition("the loss became")[2] for rank in (0, 1)]
    assert re.search(r"step \d+", found[0])
    assert "largest gradient" in found[0]
    assert found[0] == found[1]


def test_a_killed_process_ends_the_run_with_a_message(shared):
    """The other two do not hang; the first one stores the error with a hint."""
    run = shared[3] / "killed"
    what = rf"another process has ended or does not respond \(after step {worker.STEPS + 1}\)"
    for rank in (0, 1):
        assert any(re.match(what, line) for line in lines(shared[3], rank))
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "failed"
    assert re.match(what, manifest["error"])
    assert f"try: torchrun ... -m -- latentforge train --resume {run}" in manifest["error"]
    assert CheckpointStore(run / "checkpoints").load().state["processes"] == 3


# ---------------------------------------------------------------- the command line


def test_only_the_first_process_writes_and_prints(tmp_path):
    """A run with a generated name and a warning; stdout is one JSON object."""
    line = ["train", "conv-vae", "--set", "model.channels=[4, 3]", "--set", "model.hidden=8"]
    started = launch(2, "-m", "--", "latentforge", *line, "--epochs", 1, "--json", cwd=tmp_path)
    code, out, err = wait_for(started)
    assert code == 0, err
    assert json.loads(out)["status"] == "done"
    [run] = (tmp_path / "runs").iterdir()
    assert len(list(run.glob("events.*"))) == 1
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert err.count("epoch 1/1") == 1
    assert err.count("batch norm: each of 2 processes normalises with its own 32 of 64") == 1


UNLIKE = """
import os
import numpy as np
from latentforge import Forge
from latentforge.errors import LatentForgeError

x, train = np.random.default_rng(0).random((64, 4, 4), np.float32), {"epochs": 1, "batch_size": 8}
match os.environ["RANK"], os.environ["UNLIKE"]:
    case "1", "pixels":
        x[3] *= 0.5
    case "1", "images":
        x = x[:32]
    case "1", "rate":
        train["lr"] = 0.1
try:
    Forge().train("ae", data=x, model={"hidden": [4]}, train=train, run="run", quiet=True)
except LatentForgeError as error:
    raise SystemExit(f"rank {os.environ['RANK']}: {error.message}")
"""


@pytest.mark.parametrize(
    ("unlike", "said"),
    [
        ("pixels", "the data"),
        ("images", "the number of images, the data"),
        ("rate", "the configuration"),
    ],
)
def test_processes_that_are_unlike_end_before_the_first_step(tmp_path, monkeypatch, unlike, said):
    (tmp_path / "unlike.py").write_text(UNLIKE)
    monkeypatch.setenv("UNLIKE", unlike)
    code, _, err = wait_for(launch(2, "unlike.py", cwd=tmp_path))
    assert code
    # torchrun ends the others as soon as one has reported it
    assert f": process 1 of 2 and process 0 differ in {said}\n" in err
    assert not (tmp_path / "run").exists()


def test_an_invalid_request_is_reported_once(tmp_path):
    started = launch(2, "-m", "--", "latentforge", *AE, "--epochs", "none", cwd=tmp_path)
    code, out, err = wait_for(started)
    assert code
    assert out == ""
    assert err.count("error:") == 1
    assert err.count("train.epochs") == 1
    assert not (tmp_path / "runs").exists()


def test_other_commands_refuse_torchrun(tmp_path):
    code, _, err = wait_for(launch(2, "-m", "--", "latentforge", "demo", cwd=tmp_path))
    assert code
    [line] = re.findall("error: .*", err)
    assert line == "error: only `train` supports torchrun; demo runs in a single process"


@pytest.fixture
def training(tmp_path):
    """A long run of two processes after its first checkpoint: torchrun, the run folder and the
    processes in order of rank."""
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


def test_another_process_reports_that_the_first_was_killed(training):
    started, run, processes = training
    os.kill(processes[0], signal.SIGKILL)
    code, _, err = wait_for(started)
    assert code
    assert status_of(run, json.loads((run / "run.json").read_text())) == "killed"
    assert "error: another process has ended or does not respond" in err
    assert "process 1: " in err
    assert "try: torchrun ... -m -- latentforge train --resume run" in err


def test_a_process_that_waits_after_a_signal_reports_it_and_still_ends_with_a_checkpoint(training):
    started, run, processes = training
    os.kill(processes[0], signal.SIGSTOP)
    os.kill(processes[1], signal.SIGTERM)
    line = ""
    while not line.startswith("error: "):
        line = started.stderr.readline()
        assert line
    assert re.match(r"error: another process has ended or does not respond \(.*step \d+\)", line)
    assert "process 1: has waited for 15 seconds since SIGTERM" in started.stderr.readline()
    assert started.poll() is None
    os.kill(processes[0], signal.SIGCONT)
    wait_for(started)
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"


def test_sigterm_to_torchrun_stops_the_run_with_a_checkpoint(training):
    started, run, _ = training
    started.send_signal(signal.SIGTERM)
    _, _, err = wait_for(started)
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert len(re.findall("error: terminated at step", err)) == 1
    saved = CheckpointStore(run / "checkpoints").load()
    assert saved.state["step"] == manifest["steps"]
    assert saved.state["step"] % saved.state["total_steps"]
