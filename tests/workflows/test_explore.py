"""The explorer that is suggested after a training."""

from __future__ import annotations

import pytest
import torch

from latentforge import Forge
from latentforge.workflows.explore import suggest_explorer
from tests.workflows import stage_two


@pytest.mark.parametrize(
    ("model", "explorer"),
    [
        ("ae", "reconstruct"),
        ("vae", "sample"),
        ("cvae", "sample"),
        ("mlp-classifier", "activations"),
    ],
)
def test_the_suggested_explorer_explores_the_run(forge, run_of, tmp_path, model, explorer):
    run = run_of(model)
    assert suggest_explorer(run, forge.registry) == explorer
    forge.explore(explorer, run, out=tmp_path / "out", quiet=True)


def test_a_second_stage_without_an_encoder_is_sampled(tmp_path):
    """Explorers that encode images, or look at the layers of a classifier, refuse it."""
    forge = Forge([stage_two])
    x = torch.rand(60, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"data": {"train": x, "test": x.flip(0)[:20]}, "train": {"epochs": 1}, "quiet": True}
    small = {"encoder": [8], "decoder": [8], "latent_dim": 2}
    source = forge.train("vae", model=small, run=tmp_path / "vae", **options)
    roles = {"autoencoder": source}
    run = forge.train("latent-flow", roles=roles, run=tmp_path / "flow", **options)
    assert suggest_explorer(run, forge.registry) == "sample"
    forge.explore("sample", run, data=options["data"], out=tmp_path / "out", quiet=True)
