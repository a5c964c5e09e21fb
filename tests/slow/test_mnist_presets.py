"""The metrics that autoencoders and presets reach on real MNIST."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_the_autoencoder_reaches_a_bce_per_pixel_of_0_099(latentforge, tmp_path):
    result = latentforge(
        tmp_path,
        *("train", "ae", "--data", "mnist", "--epochs", "10", "--batch-size", "64", "--seed", "0"),
        *("--set", "model.hidden=[128]", "--set", "model.latent_dim=16"),
        *("--set", "model.activation=relu", "--lr", "1e-3"),
    )
    test = result["metrics"]["test"]
    assert test["bce_per_pixel"] == pytest.approx(0.099, abs=0.002)
    assert test["recon"] == pytest.approx(784 * test["bce_per_pixel"], rel=1e-5)
    # with an official test split no validation split is made
    assert set(result["metrics"]) == {"train", "test"}


# Both betas and both numbers of dimensions; `make reproduce` trains all presets.
@pytest.mark.parametrize("preset", ["grad-vae-beta4", "grad-vae-z10-beta1"])
def test_a_preset_reaches_its_metrics(reproduce, tmp_path, preset):
    reproduce(tmp_path, preset)
