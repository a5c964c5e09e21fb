"""Streamed images give the batches of images in memory, and refuse access to the whole."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from latentforge.config.schema import DataConfig
from latentforge.contracts import Arrays
from latentforge.data import prefetch
from latentforge.data.images import ImageSplit
from latentforge.data.memory import streaming_reason
from latentforge.data.preparation import prepare, prepare_whole
from latentforge.data.streamed import StreamedImages, stream_from_memory
from latentforge.errors import RunFailed, UsageError
from latentforge.runtime import memory
from latentforge.runtime.memory import host_memory

X = np.random.default_rng(1).integers(0, 256, (100, 4, 6), dtype=np.uint8)
Y = np.arange(100) % 4


def splits(mode, workers=0, **options):
    config = DataConfig(0.1, 0.2, 5, stream=mode, workers=workers, **options)
    return prepare({"train": Arrays(X, Y)}.__getitem__, ("train",), "d", config)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_contains_the_same_images_in_the_same_order(split):
    one, other = splits("always").split(split), splits("never").split(split)
    assert type(one) is StreamedImages
    assert type(other) is ImageSplit
    assert len(one) == len(other)
    for batch, same in zip(one.batches(7), other.batches(7), strict=True):
        assert torch.equal(batch.x, same.x)
        assert torch.equal(batch.y, same.y)
        assert torch.equal(batch.index, same.index)
    assert torch.equal(one.of_class(2), other.of_class(2))
    assert torch.equal(one.raw(torch.tensor([3, 1])), other.x[[3, 1]])


@pytest.mark.parametrize("workers", [0, 1])
def test_unexpected_batches_may_be_requested_in_between(workers):
    images, whole = splits("always", workers).split("train"), splits("never").split("train")
    order = torch.split(torch.randperm(len(whole)), 9)
    images.expect(order)
    before = torch.random.get_rng_state()
    for index in order[2:]:  # as after a resume
        assert torch.equal(images.batch(index).x, whole.batch(index).x)
        assert torch.equal(images.batch_at([0]).x, whole.batch_at([0]).x)
    assert torch.equal(images.batch(order[1]).x, whole.batch(order[1]).x)
    images.close()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_images_in_memory_can_be_streamed_to_a_device_that_is_too_small():
    resident = splits("never").split("train")
    streamed = stream_from_memory(resident, 0, "too many").to("cpu")
    index = torch.tensor([5, 5, 2])
    assert torch.equal(streamed.batch(index).x, resident.batch(index).x)


def test_a_memory_mapped_array_with_gaps_is_streamed(tmp_path):
    np.save(tmp_path / "x.npy", np.repeat(X, 2, 2))
    with_gaps = np.load(tmp_path / "x.npy", mmap_mode="r")[:, :, ::2]
    config = DataConfig(0.1, 0.2, 5, stream="always")
    streamed = prepare({"train": Arrays(with_gaps, Y)}.__getitem__, ("train",), "d", config)
    assert type(streamed.split("train")) is StreamedImages
    index = torch.tensor([3, 40, 3])
    expected = splits("never").split("train").batch(index)
    assert torch.equal(streamed.split("train").batch(index).x, expected.x)


class Unreadable:
    """A dataset without `targets`, one of whose examples raises an exception."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        if index == 70:
            raise OSError("the disk is gone")
        return X[index], Y[index]


@pytest.mark.parametrize("stream", ["always", "never"])
def test_an_example_that_cannot_be_read_is_named(stream):
    config = DataConfig(0.1, 0.2, 5, stream=stream)
    with pytest.raises(UsageError, match=r"example 70 cannot be read: OSError: the disk is gone"):
        prepare({"train": Unreadable()}.__getitem__, ("train",), "d", config)


def test_access_to_all_images_as_one_tensor_is_refused_with_a_hint():
    with pytest.raises(UsageError, match="streamed and not in memory as a whole") as caught:
        _ = splits("always").split("train").x
    assert "batches" in caught.value.hint


def test_dynamic_mode_draws_held_out_images_once():
    test = splits("always", binarize="dynamic").split("test")
    first, second = (torch.cat([b.x for b in test.batches(size)]) for size in (20, 3))
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}


def test_auto_streams_data_larger_than_half_of_the_memory():
    assert streaming_reason(DataConfig(), 50, 100, "memory") == ""
    why = streaming_reason(DataConfig(), 10_200_000_000, 2_000_000_000, "memory")
    assert why == "10.2 GB is more than half of 2.0 GB, the free memory"
    assert streaming_reason(DataConfig(stream="never"), 10, 1, "memory") == ""
    assert type(splits("auto").split("train")) is ImageSplit


def test_host_memory_is_the_minimum_of_machine_and_cgroup_limits(tmp_path, monkeypatch):
    free = SimpleNamespace(available=500 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert host_memory() == 500 * 2**20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert host_memory() == 500 * 2**20
    (tmp_path / "memory.max").write_text("9000\n")
    assert host_memory() == 8000
    (tmp_path / "memory.stat").write_text("anon 300\nfile 600\n")  # the page cache is reclaimable
    assert host_memory() == 8600
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("7000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("6500\n")
    assert host_memory() == 500
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("8000\n")
    assert host_memory() == 0


def test_host_memory_respects_the_limit_of_the_process():
    code = "from latentforge.runtime.memory import host_memory; print(host_memory())"
    limit = 900_000_000
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    assert 0 < int(done.stdout) < limit < host_memory()


def test_streamed_images_are_only_equal_to_themselves():
    one, other = splits("always").split("train"), splits("never").split("train")
    assert repr(one) == "StreamedImages(d, split train, 72 images)"
    assert [one.same_as(one), one.same_as(other), other.same_as(one)] == [True, False, False]


def test_batches_of_dynamically_binarized_training_images_are_the_same_each_time():
    train = splits("always", binarize="dynamic").split("train")
    first, second = (torch.cat([batch.x for batch in train.batches(20)]) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}


def test_streamed_and_vector_data_can_be_shown(cli, work):
    np.savez(work / "maps.npz", x=X)
    line = "data show arrays --set data.path=maps.npz --set data.stream=always --json"
    shown = cli(*line.split()).json
    assert (shown["range"], shown["classes"]) == ([0.0, 255.0], [])
    assert Path("data-arrays-1.png").exists()
    np.save(work / "vectors.npy", np.ones((50, 3), np.float32))
    shown = cli("data", "show", "arrays", "--set", "data.path=vectors.npy", "--json").json
    assert shown["shape"] == [3]
    assert shown["picture"] == "data-arrays-2.png"
    assert Path("data-arrays-2.png").exists()


# ---------------------------------------------------------------- workers that cannot answer


class Sleeper(Dataset):
    """Items that a worker never returns."""

    def __len__(self):
        return 40

    def __getitem__(self, i):
        if get_worker_info() and i > 20:
            time.sleep(1000)
        return X[i % len(X)]


def test_small_shared_memory_is_announced_and_not_used(monkeypatch, caplog):
    free = SimpleNamespace(f_bavail=16, f_frsize=16, f_blocks=4)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    prefetch.announce.cache_clear()
    streamed, resident = splits("always", workers=2), splits("never")
    pairs = [[b.x for b in s.split("train").batches(16)] for s in (streamed, resident)]
    assert all(map(torch.equal, *pairs))
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("images are read without the workers of data.workers=2: ")
    assert "bytes are needed in /dev/shm, of whose 64 bytes fewer are free" in message


@pytest.mark.slow  # torch waits five seconds for the worker
def test_worker_that_does_not_answer_is_an_error_and_is_ended(monkeypatch):
    monkeypatch.setattr(prefetch, "TICK", 0.2)
    monkeypatch.setattr(prefetch, "PATIENCE", 1.0)
    given = {"train": Sleeper()}
    config = DataConfig(stream="always", workers=1)
    images = prepare_whole(given, "d", config).split("train")
    before = {*psutil.Process().children()}
    with pytest.raises(RunFailed, match="has not answered for 1 s") as caught:
        list(images.batches(8))
    assert "data.workers=0" in caught.value.hint
    left = {*psutil.Process().children()} - before
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


WAITING = """
import time
from torch.utils.data import Dataset, get_worker_info
import numpy as np
from latentforge import Forge

class Sleeper(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        if get_worker_info() and i == 3:
            open("asleep", "w").close()
            time.sleep(1000)
        return np.full((6, 5), i * 3, np.uint8)

data = {"train": Sleeper(), "stream": "always", "workers": 1}
Forge().train("ae", data=data, model={"hidden": [4]}, train={"batch_size": 8}, run="run")
"""


@pytest.mark.slow  # a process, and torch waits five seconds for the worker
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_sigterm_ends_a_run_that_waits_for_a_worker_with_a_checkpoint(work):
    Path("waiting.py").write_text(WAITING)
    process = subprocess.Popen([sys.executable, "waiting.py"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("asleep").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "terminated at step" in err
    assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
    assert Path("run/checkpoints/LATEST").exists()
