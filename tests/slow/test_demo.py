"""The demo, as a new user runs it: its files, its metrics and its output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from latentforge.cli import demo
from latentforge.testing import Answer

pytestmark = pytest.mark.slow


def test_the_demo_reaches_its_metrics_without_warnings(start, cli, work):
    process = start("demo", "--json")
    out, err = process.communicate(timeout=300)
    answer = Answer(process.returncode, out, err)
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

    assert (result["out"], result["report"]) == ("runs/demo-1", "runs/demo-1/vae/report.html")
    assert list(result["runs"].values()) == [f"runs/demo-1/{run}" for run in ("vae", "mlp", "cnn")]
    for name, run in result["runs"].items():
        manifest = json.loads(Path(run, "run.json").read_text("utf-8"))
        assert (manifest["status"], manifest["findings"]) == ("done", [])
        assert manifest["metrics"]["test"] == metrics[name]
    for name, pictures in result["pictures"].items():
        found = json.loads(Path(f"runs/demo-1/vae/explore/{name}/findings.json").read_text("utf-8"))
        assert found["metrics"] == metrics[name]
        for picture in pictures:
            with Image.open(picture) as image:
                assert min(image.size) > 100
    assert "runs/demo-1/vae/explore/guided/walk.gif" in result["pictures"]["guided"]

    page = Path(result["report"]).read_text("utf-8")
    assert len(page.encode()) < 15e6
    for name in demo.EXPLORERS:
        assert f"latentforge explore {name} runs/demo-1/vae" in page
    assert "--with judge=runs/demo-1/cnn" in page

    steps = [line for line in answer.err.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in steps] == [f"[{i}/8" for i in range(1, 9)]
    text = demo.format_result(result)
    assert "open      runs/demo-1/vae/report.html" in text
    for run in ("mlp", "cnn"):
        [line] = [line for line in text if line.startswith(f"{run} ")]
        accuracy = f"{100 * metrics[run]['accuracy']:.1f}"
        assert re.search(rf" {re.escape(accuracy)} % +of 359 test images", line)

    again = cli("demo", "--out", result["out"])
    assert again.code == 2
    assert "will not be overwritten" in again.err
