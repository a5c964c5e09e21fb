"""The figures that a correct build reaches on real MNIST."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LATENTFORGE_DATA" not in os.environ, reason="real MNIST: set LATENTFORGE_DATA"
    ),
]


def train(folder, *arguments):
    """`latentforge train` with every core, as a user would run it."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["LATENTFORGE_DATA"] = os.path.abspath(environment["LATENTFORGE_DATA"])
    done = subprocess.run(
        [sys.executable, "-m", "latentforge", "train", *arguments, "--quiet", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_autoencoder_ends_at_a_bce_per_pixel_of_0_099(tmp_path):
    answer = train(
        tmp_path,
        *("ae", "--data", "mnist", "--epochs", "10", "--batch-size", "64", "--seed", "0"),
        *("--set", "model.hidden=[128]", "--set", "model.latent_dim=16"),
    )
    test = answer["metrics"]["test"]
    assert test["bce_per_pixel"] == pytest.approx(0.099, abs=0.002)
    assert test["recon"] == pytest.approx(784 * test["bce_per_pixel"], rel=1e-5)
    # nothing is selected by score where there is an official test split
    assert set(answer["metrics"]) == {"train", "test"}


def test_the_classifier_has_7178_parameters_and_reaches_98_5_percent(tmp_path):
    from latentforge import open_run

    answer = train(
        tmp_path,
        *("cnn-classifier", "--data", "mnist", "--epochs", "40", "--batch-size", "256"),
        *("--lr", "1e-3", "--seed", "0"),
    )
    model = open_run(tmp_path / answer["run"]).load_model()
    assert sum(p.numel() for p in model.parameters()) == 7178
    assert answer["metrics"]["test"]["accuracy"] >= 0.985
