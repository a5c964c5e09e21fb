"""The metrics that guided generation, inpainting and the latent map reach on real MNIST."""

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
GUIDED = ("guided", "--with", "classifier=mlp", "--with", "judge=cnn", "--set", "n=1000")


def latentforge(folder, *arguments):
    """The JSON result of a command, with every core, as a user would run it."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["LATENTFORGE_DATA"] = os.path.abspath(environment["LATENTFORGE_DATA"])
    command = [sys.executable, "-m", "latentforge", *arguments, "--quiet", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An autoencoder and a VAE to search, a classifier that guides, and one that judges, trained
    for 15 of its preset's 100 epochs."""
    folder = tmp_path_factory.mktemp("metrics")
    presets = {
        "ae2": ("latent-differentiation-ae",),
        "mlp": ("latent-differentiation-classifier",),
        "vae16": ("vanilla-vae",),
        "cnn": ("diffusion-series-cnn", "--epochs", "15"),
    }
    for run, preset in presets.items():
        result = latentforge(folder, "train", "--preset", *preset, "--run", run)
        if run == "cnn":
            assert result["metrics"]["test"]["accuracy"] >= 0.975
    return folder


def explore(folder, run, *arguments):
    explorer, *rest = arguments
    return latentforge(folder, "explore", explorer, run, *rest)["metrics"]


def test_guided_search_in_2_dimensions_succeeds_for_99_percent(work):
    found = explore(work, "ae2", *GUIDED)
    assert found["success_share"] >= 0.99
    assert found["judge_agreement"] >= 0.97
    assert found["success_at_start"] <= 0.05  # it is search, not retrieval


def test_guided_search_in_16_dimensions_succeeds_for_99_5_percent(work):
    found = explore(work, "vae16", *GUIDED)
    assert found["success_share"] >= 0.995
    assert found["judge_agreement"] >= 0.97
    assert found["success_at_start"] <= 0.05


def test_the_search_of_the_original_write_up_rarely_succeeds(work):
    found = explore(work, "ae2", *GUIDED, "--preset", "latent-differentiation-search")
    assert 0.08 <= found["success_share"] <= 0.35
    assert found["judge_agreement"] <= found["success_share"] + 0.05


def test_inpainting_has_a_lower_error_than_both_baselines(work):
    found = explore(work, "vae16", "guided", "--preset", "inpaint-lower-half")
    best = min(found["hidden_mse_class_mean"], found["hidden_mse_nearest"])
    assert found["hidden_mse_per_pixel"] < best


def test_the_tsne_map_preserves_the_classes_of_neighbours(work):
    found = explore(work, "vae16", "latent-map")
    assert found["knn_accuracy_map"] >= found["knn_accuracy_codes"] - 0.02
    assert found["knn_accuracy_codes"] >= 0.93  # or there is nothing to preserve
