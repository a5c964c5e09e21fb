"""The full demo, as a new user runs it, and the metrics that it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_reaches_its_metrics_without_warnings(process, work):
    answer = process("demo", "--json")
    assert answer.code == 0, answer.err
    assert "warning" not in answer.err
    result = answer.json
    metrics = result["metrics"]
    assert metrics["vae"]["elbo"] > -158
    assert min(metrics[run]["accuracy"] for run in ("mlp", "cnn")) > 0.94
    assert metrics["latent-map"]["knn_accuracy_map"] > 0.75
    assert metrics["guided"]["success_at_start"] == 0
    assert metrics["guided"]["success_share"] >= 0.98
    assert metrics["guided"]["judge_agreement"] >= 0.95
    assert Path(result["report"]).stat().st_size < 15e6
    for run in result["runs"].values():
        assert json.loads(Path(run, "run.json").read_text("utf-8"))["findings"] == []
