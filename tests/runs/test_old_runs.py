"""Small stored runs of every past format, which must keep loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from latentforge import Forge

STORED = sorted((Path(__file__).parent / "stored").glob("run-*"))


@pytest.fixture(params=STORED, ids=lambda path: path.name)
def run(request, tmp_path):
    shutil.copytree(request.param, tmp_path / "run")
    return Forge().open_run(tmp_path / "run")


def test_there_is_a_run_of_each_format():
    assert {path.name for path in STORED} >= {"run-format-1", "run-format-1-resumable"}


def test_an_old_run_evaluates_to_its_stored_metrics(run):
    lines = (run.path / "evaluations.jsonl").read_text().splitlines()
    for evaluation in map(json.loads, lines):
        request = {"split": evaluation["split"], "checkpoint": evaluation["checkpoint"]}
        found = run.evaluate(**request, protocol=1)
        without = {name: value for name, value in found.items() if name in evaluation["metrics"]}
        assert without == pytest.approx(evaluation["metrics"], rel=1e-4)
        # older versions lack the sampling errors
        assert {*found} - {*without} <= {
            "loss_se",
            "recon_se",
            "elbo_se",
        }
        if "recon_se" in found:
            assert run.evaluate(**request)["recon"] != pytest.approx(found["recon"], rel=1e-6)
    assert run.evaluate(checkpoint="best")
    assert len(run.history()) >= 2


def test_an_old_run_can_be_explored_and_reported(run):
    assert run.explore("interpolate", images=[0, 1], quiet=True)["files"]
    page = run.report().read_text()
    assert "sample" in page
    assert "interpolate" in page


def test_an_old_run_resumes_where_it_stopped(run):
    if run.status != "interrupted":
        pytest.skip("this run was not interrupted")
    step = run.manifest["steps"]
    done = Forge().resume(run, quiet=True)
    assert done.manifest["resumed"][0]["step"] == step
    assert done.status == "done"
    assert [line["epoch"] for line in done.history()] == [*range(1, 41)]


def test_an_option_that_was_added_later_has_its_former_value(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
    data = {"train": x, "test": x[:10]}
    model = {"channels": [2, 2], "hidden": 4, "latent_dim": 2, "padding": "zeros"}
    run = Forge().train("conv-vae", model=model, data=data, train={"epochs": 1}, run=tmp_path / "r")
    metrics = run.evaluate(data=data)
    manifest = json.loads((run.path / "run.json").read_text())
    del manifest["config"]["model"]["padding"]  # as in a run from before the option
    (run.path / "run.json").write_text(json.dumps(manifest))
    older = Forge().open_run(run.path)
    assert older.evaluate(data=data) == metrics
    resumed = Forge().resume(older, data=data, train={"epochs": 2})
    assert resumed.config["model"]["padding"] == "zeros"
