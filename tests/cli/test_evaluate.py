"""`latentforge evaluate`: its output and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BROKEN = """
from latentforge import MeasureSpec, hookimpl
from latentforge.errors import UsageError

class Fails:
    def __init__(self, where):
        self.where = where
    def update(self, seen):
        if self.where == "update":
            raise ValueError("a bug")
    def compute(self):
        raise UsageError("the data does not define it")

def build(where):
    if where == "build":
        raise UsageError("these images are not supported")
    return Fails(where)

@hookimpl
def latentforge_measures():
    for where in ("build", "update", "compute"):
        yield MeasureSpec(
            name=f"fails_in_{where}", summary="x", protocol="none", needs={"encode"},
            build=lambda config, context, where=where: build(where), default=False,
        )
"""


def test_evaluate_prints_metrics_with_the_protocol(cli, runs):
    answer = cli("evaluate", "runs/ae")
    assert answer.code == 0
    first, *rows = answer.out.splitlines()
    assert first == "runs/ae, test split, checkpoint step-00000033"
    assert [row.split()[0] for row in rows[:4]] == [
        "bce_per_pixel",
        "loss",
        "mse_per_pixel",
        "recon",
    ]
    assert "nats per image, summed over pixels" in answer.out
    assert answer.err == ""


def test_evaluate_json_has_the_test_metrics_of_the_training(cli, runs):
    said = cli("evaluate", "runs/ae", "--json").json
    assert {"run", "split", "checkpoint", "metrics"} <= set(said)
    assert (said["run"], said["split"], said["checkpoint"]) == ("runs/ae", "test", "step-00000033")
    trained = json.loads((runs / "ae" / "run.json").read_text())["metrics"]["test"]
    assert said["metrics"] == pytest.approx(trained, rel=1e-5)
    assert set(said["protocol"]) == set(said["metrics"])


def test_evaluate_selects_split_checkpoint_and_metrics(cli, runs):
    said = cli(
        *("evaluate", "runs/ae", "--split", "validation", "--checkpoint", "best"),
        *("--measure", "recon", "--measure", "mse_per_pixel", "--json"),
    ).json
    assert said["split"] == "validation"
    assert list(said["metrics"]) == ["recon", "mse_per_pixel"]
    best = (runs / "ae" / "checkpoints" / "BEST").read_text().split()[0]
    assert said["checkpoint"] == best
    lines = [json.loads(s) for s in (runs / "ae" / "metrics.jsonl").read_text().splitlines()]
    least = min(line["validation"]["loss"] for line in lines)
    assert said["metrics"]["recon"] == pytest.approx(least, rel=1e-5)


def test_evaluate_warns_if_the_metrics_cannot_be_saved(cli, runs):
    (runs / "ae" / "evaluations.jsonl").mkdir()  # not writable as a file, even by root
    answer = cli("evaluate", "runs/ae", "--json")
    assert answer.code == 0
    assert answer.json["metrics"]["recon"] > 0
    assert "warning: the metrics cannot be saved: cannot write to" in answer.err


@pytest.mark.parametrize(("where", "code"), [("update", 3), ("compute", 2)])
def test_a_measure_that_fails_leaves_the_metrics_of_the_others(cli, runs, where, code):
    Path("broken.py").write_text(BROKEN)
    measures = ("--measure", f"fails_in_{where}", "--measure", "mse_per_pixel")
    answer = cli("-p", "broken.py", "evaluate", "runs/ae", *measures)
    assert answer.code == code
    assert "mse_per_pixel" in answer.out
    assert ("a bug" if where == "update" else "the data does not define it") in answer.err
    said = cli("-p", "broken.py", "evaluate", "runs/ae", *measures, "--json").json
    alone = cli("evaluate", "runs/ae", "--measure", "mse_per_pixel", "--json").json
    assert (said["status"], said["exit_code"]) == ("failed", code)
    assert said["metrics"] == alone["metrics"]
    stored = [json.loads(s) for s in Path("runs/ae/evaluations.jsonl").read_text().splitlines()]
    assert [line["metrics"] for line in stored] == [alone["metrics"]] * 3
    only = cli("-p", "broken.py", "evaluate", "runs/ae", *measures[:2])
    assert (only.code, only.out) == (code, "")


def test_a_measure_that_cannot_be_built_is_refused_before_the_others(cli, runs):
    Path("broken.py").write_text(BROKEN)
    measures = ("--measure", "mse_per_pixel", "--measure", "fails_in_build")
    answer = cli("-p", "broken.py", "evaluate", "runs/ae", *measures)
    assert (answer.code, answer.out) == (2, "")
    assert "these images are not supported" in answer.err
    assert "no metric was computed; requested besides fails_in_build: mse_per_pixel" in answer.err
    assert not Path("runs/ae/evaluations.jsonl").exists()
