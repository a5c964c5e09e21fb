"""`latentforge evaluate`: its output and its refusals."""

from __future__ import annotations

import json

import pytest


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
