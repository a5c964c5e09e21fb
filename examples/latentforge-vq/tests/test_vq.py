import math
from pathlib import Path

import numpy as np
import pytest
import torch
from latentforge_vq import VqVaeConfig, build_model

from latentforge import DataSpec
from latentforge.testing import tiny_images


@pytest.fixture
def run(forge):
    train = {"epochs": 5, "lr": 3e-3, "batch_size": 16}
    return forge.train("latentforge-vq/vq-vae", data=tiny_images(), train=train, quiet=True)


def test_codes_are_the_nearest_entries():
    torch.manual_seed(0)
    model = build_model(VqVaeConfig(entries=5, dim=3), DataSpec((1, 8, 8)))
    posterior = model.encode(torch.rand(4, 1, 8, 8))
    flat = posterior.continuous.movedim(1, -1)  # (B, h, w, D)
    distance = (flat[..., None, :] - model.codebook).norm(dim=-1)
    assert torch.equal(posterior.entry, distance.argmin(-1))
    assert torch.equal(posterior.mode().movedim(1, -1), model.codebook[posterior.entry])


def test_gradients_pass_straight_through_to_the_encoder_alone():
    model = build_model(VqVaeConfig(), DataSpec((1, 8, 8)))
    model.encode(torch.rand(4, 1, 8, 8)).sample().sum().backward()
    assert all(bool(p.grad.any()) for p in model.encoder.parameters())
    assert model.codebook.grad is None


def test_it_learns_to_reconstruct(forge):
    train = {"epochs": 3, "lr": 3e-3, "batch_size": 32}
    run = forge.train("latentforge-vq/vq-vae", data="digits", train=train, quiet=True)
    first, *_, last = run.history()
    assert last["train"]["recon"] < 0.7 * first["train"]["recon"]


def test_explorer_counts_the_entries_of_the_test_codes(run):
    found = run.explore("codebook", shown=4, quiet=True)
    files = {Path(file).name: Path(file) for file in found["files"]}
    assert {"use.png", "entries.png", "codebook.npz"} <= set(files)
    counts = np.load(files["codebook.npz"])["counts"]
    assert counts.sum() == 15 * 4 * 4  # test images times code positions
    shares = counts[counts > 0] / counts.sum()
    expected = math.exp(-float((shares * np.log(shares)).sum()))
    assert found["metrics"]["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert run.metrics["test"]["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert found["metrics"]["used"] == (counts > 0).sum()
