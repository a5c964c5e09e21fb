"""sweep.json stores the request of a sweep so that it can be resumed from any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from latentforge import Forge
from latentforge.errors import ConfigError

from .stored import read

TINY = {"encoder": [16], "decoder": [16], "latent_dim": 2}
ONCE = {"epochs": 1, "batch_size": 256}


def test_numpy_numbers_are_stored_as_json_numbers(tmp_path):
    train = {"epochs": np.int64(1), "batch_size": np.int32(512)}
    grid = {"train.seed": list(np.arange(2)), "train.lr": np.array([1e-3])}
    made = Forge().sweep("ae", train=train, grid=grid, out=tmp_path / "s", quiet=True)
    assert [run.status for run in made.runs()] == ["done", "done"]
    record = read(made.path / "sweep.json")
    assert record["grid"] == {"train.seed": [0, 1], "train.lr": [1e-3]}
    assert record["base"]["train"] == {"epochs": 1, "batch_size": 512}


def test_sweep_with_relative_paths_resumes_from_another_folder(work, tmp_path, monkeypatch):
    x = np.random.default_rng(0).random((60, 6, 6), np.float32)
    np.save("a.npy", x)
    np.save("b.npy", 1 - x)
    np.save("y.npy", np.arange(60) % 2)
    forge, data = Forge(), {"name": "arrays", "labels": "y.npy"}
    made = forge.sweep(
        "vae",
        data=data,
        model=TINY,
        train=ONCE,
        grid={"data.path": ["a.npy", Path("b.npy")]},
        out="s",
        quiet=True,
    )
    path = made.path.absolute()
    record = read(path / "sweep.json")
    assert record["base"]["data"]["labels"] == str(work / "y.npy")
    assert record["grid"]["data.path"] == [str(work / "a.npy"), str(work / "b.npy")]
    assert [member["name"] for member in record["members"]] == ["1-path=a.npy", "2-path=b.npy"]
    shutil.rmtree(path / "2-path=b.npy")
    record["members"][1].update(status="waiting", metrics={})
    (path / "sweep.json").write_text(json.dumps(record), "utf-8")
    monkeypatch.chdir(tmp_path)
    again = forge.resume_sweep(path, quiet=True)
    assert again.status == "done"
    assert again.members[1]["metrics"] == made.members[1]["metrics"]


def test_equal_paths_are_refused_as_duplicate_values(work):
    np.save("a.npy", np.zeros((60, 6, 6), np.float32))
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Forge().sweep("vae", data="arrays", grid={"data.path": ["a.npy", Path("a.npy")]}, out="s")
    assert "contains a value twice" in caught.value.details[0]
    assert not Path("s").exists()
