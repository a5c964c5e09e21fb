"""Models that are trained on digits with default settings learn something."""

from __future__ import annotations

import pytest

from latentforge import Forge

pytestmark = pytest.mark.slow


def test_the_codes_of_a_vae_are_informative(work):
    test = Forge().train("vae", quiet=True).metrics["test"]
    assert test["kl"] > 5
    assert test["elbo"] > -164  # with a rate of 0.001 and relu: -179


@pytest.mark.parametrize(
    ("model", "metric", "low", "high"),
    [
        ("ae", "loss", 0, 150),  # with a rate of 0.001 and relu: 172
        ("cnn-classifier", "accuracy", 0.78, 1),  # with a rate of 0.001: 0.68
        ("mlp-classifier", "accuracy", 0.9, 1),
    ],
)
def test_other_models_reach_their_metrics(work, model, metric, low, high):
    assert low < Forge().train(model, quiet=True).metrics["test"][metric] < high
