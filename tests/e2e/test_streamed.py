"""Streamed data from the command line: train, evaluate, explore, doctor, encode."""

from __future__ import annotations

import numpy as np
import pytest

SMALL = ["--set", "model.hidden=[16]", "--set", "model.latent_dim=3"]


@pytest.fixture
def stream_options(work):
    """Options that stream 200 images from a file."""
    draw = np.random.default_rng(0)
    np.save(work / "x.npy", draw.integers(0, 256, (200, 8, 8), dtype=np.uint8))
    np.save(work / "y.npy", np.arange(200) % 5)
    return ["arrays", *(f"--set=data.{key}" for key in ("path=x.npy", "labels=y.npy"))]


@pytest.mark.slow
def test_run_on_streamed_images_trains_evaluates_and_explores(cli, stream_options):
    options = [*SMALL, "--set=data.stream=always", "--set=data.workers=1", "--epochs", 1]
    trained = cli("train", "ae", "--data", *stream_options, *options, "--run", "run")
    assert trained.code == 0, trained.err
    assert "steps: images streamed (data.stream is always; data.workers=1)" in trained.err
    assert cli("evaluate", "run").code == 0
    for explorer in (
        "interpolate",
        "latent-map",
        "reconstruct",
        "sample",
        "traverse",
        "corruption",
    ):
        answer = cli("explore", explorer, "run")
        assert answer.code == 0, answer.err
    answer = cli("doctor", "run", "--json")
    assert answer.json["findings"] is not None
    assert answer.err == ""
    assert cli("encode", "run", "--out", "codes.npz").code == 0
