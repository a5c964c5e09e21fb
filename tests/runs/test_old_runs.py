"""Small runs of every format that there was: they load for ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentforge import Forge

KEPT = sorted((Path(__file__).parent / "stored").glob("run-*"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def run(request, tmp_path):
    shutil.copytree(request.param, tmp_path / "run")
    return Forge().open_run(tmp_path / "run")


def test_there_is_a_run_of_each_format():
    assert {path.name for path in KEPT} >= {"run-format-1", "run-format-1-resumable"}


def test_it_gives_the_figures_that_it_gave(run):
    lines = (run.path / "evaluations.jsonl").read_text().splitlines()
    for told in map(json.loads, lines):
        found = run.evaluate(told["split"], checkpoint=told["checkpoint"])
        assert found == pytest.approx(told["metrics"], rel=1e-4)
    assert run.evaluate(checkpoint="best")
    assert len(run.history()) >= 2


def test_it_is_explored_and_reported(run):
    assert run.explore("interpolate", images=[0, 1], quiet=True)["files"]
    page = run.report().read_text()
    assert "sample" in page
    assert "interpolate" in page


def test_it_goes_on_where_it_was_stopped(run):
    if run.status != "interrupted":
        pytest.skip("a run that was not stopped")
    step = run.manifest["steps"]
    done = Forge().resume(run, quiet=True)
    assert done.manifest["resumed"][0]["step"] == step
    assert done.status == "done"
    assert [line["epoch"] for line in done.history()] == [*range(1, 41)]
