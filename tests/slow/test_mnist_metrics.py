"""The metrics that a correct build reaches on real MNIST."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LATENTFORGE_DATA" not in os.environ, reason="real MNIST: set LATENTFORGE_DATA"
    ),
]


def run(folder, *command):
    """The output of a Python program with every core, as a user would run it."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["LATENTFORGE_DATA"] = os.path.abspath(environment["LATENTFORGE_DATA"])
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(folder, *arguments):
    command = ("-m", "latentforge", "train", *arguments, "--quiet", "--json")
    return json.loads(run(folder, *command))


def test_the_autoencoder_reaches_a_bce_per_pixel_of_0_099(tmp_path):
    result = train(
        tmp_path,
        *("ae", "--data", "mnist", "--epochs", "10", "--batch-size", "64", "--seed", "0"),
        *("--set", "model.hidden=[128]", "--set", "model.latent_dim=16"),
    )
    test = result["metrics"]["test"]
    assert test["bce_per_pixel"] == pytest.approx(0.099, abs=0.002)
    assert test["recon"] == pytest.approx(784 * test["bce_per_pixel"], rel=1e-5)
    # with an official test split no validation split is made
    assert set(result["metrics"]) == {"train", "test"}


def test_the_classifier_has_7178_parameters_and_reaches_98_5_percent(tmp_path):
    from latentforge import open_run

    result = train(
        tmp_path,
        *("cnn-classifier", "--data", "mnist", "--epochs", "40", "--batch-size", "256"),
        *("--lr", "1e-3", "--seed", "0"),
    )
    model = open_run(tmp_path / result["run"]).load_model()
    assert sum(p.numel() for p in model.parameters()) == 7178
    assert result["metrics"]["test"]["accuracy"] >= 0.985


def test_the_vae_reaches_its_metrics_and_its_likelihood_exceeds_the_elbo(tmp_path):
    result = train(tmp_path, "--preset", "vanilla-vae", "--run", "vae")
    assert result["metrics"]["train"]["loss"] == pytest.approx(105.0, abs=0.7)
    assert result["metrics"]["test"]["elbo"] == pytest.approx(-104.4, abs=0.7)
    command = ("-m", "latentforge", "evaluate", "vae", "--measure", "nll", "--json")
    nll = json.loads(run(tmp_path, *command, "--set", "nll.samples=1000"))["metrics"]
    assert 90 < nll["nll"] < -result["metrics"]["test"]["elbo"]
    assert nll["nll_se"] < 0.1
    assert nll["nll_image_se"] < 0.5


@pytest.mark.parametrize(
    "preset",
    [
        "latent-differentiation-classifier",
        "latent-differentiation-ae",
        "grad-vae-beta1",
        "grad-vae-beta4",
        "grad-vae-z10-beta1",
        "grad-vae-z10-beta4",
    ],
)
def test_a_preset_reaches_its_metrics(tmp_path, preset):
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce.py"
    out = run(tmp_path, str(script), "--only", preset)  # fails if a metric does
    assert f"{preset}: " in out
    assert "NOT as expected" not in out
