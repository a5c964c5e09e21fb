"""`wae`: the MMD against numpy, its expectation, and what the loss compares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from latentforge_plugins.wae.config import WaeConfig
from latentforge_plugins.wae.loss import Wae, mmd
from torch import nn

from latentforge import DataSpec, LatentSpec
from latentforge.contracts import Batch, Step
from latentforge.latent import Point

SCALES = (0.2, 1.0, 5.0)
STEP = Step(1, 10, 6, 1)


def test_the_mmd_matches_a_double_loop_of_numpy():
    z, other = torch.randn(5, 3), 1 + torch.randn(5, 3)
    a, b = z.double().numpy(), other.double().numpy()

    def k(x, y):
        return sum(2 * 3 * s / (2 * 3 * s + np.sum((x - y) ** 2)) for s in SCALES)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs if i != j) / 20
    between = sum(k(a[i], b[j]) for i, j in pairs) / 25
    assert float(mmd(z, other, SCALES)) == pytest.approx(within - 2 * between, abs=1e-5)


def test_the_mmd_of_equal_distributions_is_zero_on_average():
    torch.manual_seed(0)
    drawn = torch.stack([mmd(torch.randn(8, 2), torch.randn(8, 2), SCALES) for _ in range(3000)])
    error = float(drawn.std()) / 3000**0.5
    assert abs(float(drawn.mean())) < 4 * error
    shifted = [mmd(0.5 + torch.randn(8, 2), torch.randn(8, 2), SCALES) for _ in range(3000)]
    assert float(torch.stack(shifted).mean()) > 10 * error


def test_the_gradient_is_finite_for_equal_codes():
    z = torch.zeros(4, 3, requires_grad=True)
    mmd(z, torch.randn(4, 3), SCALES).backward()
    assert bool(z.grad.isfinite().all())
    assert bool(z.grad.any())


def test_one_code_has_no_mmd():
    """Without pairs, only the attraction to the samples of the prior would remain."""
    z = torch.randn(1, 3, requires_grad=True)
    found = mmd(z, torch.randn(1, 3), SCALES)
    found.backward()
    assert found == 0
    assert not z.grad.any()


@pytest.mark.parametrize("options", [("batch_size=1",), ("batch_size=2", "accumulate=2")])
def test_batches_of_one_code_are_refused(cli, work, options):
    settings = [part for option in options for part in ("--set", f"train.{option}")]
    refused = cli("train", "vae", "--data", "digits", "--loss", "wae", *settings)
    assert refused.code == 2
    assert "the loss wae compares pairs of codes" in refused.err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_far_from_the_origin_are_compared_exactly(dtype):
    """Under autocast, a product of matrices would round the distances to bfloat16."""
    z, other = 1000 + torch.randn(6, 2), 1000 + torch.randn(6, 2)
    exact = mmd((z - 1000).double(), (other - 1000).double(), SCALES)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = mmd(z, other, SCALES)
    assert float(found) == pytest.approx(float(exact), abs=2e-3)


class Codes(nn.Module):
    """The code is x, and the prior is uniform in [0, 1], as x is."""

    latent = LatentSpec((2,), "own")

    def encode(self, x):
        return Point(x)

    def decode(self, z):
        return z

    def prior(self):
        return torch.distributions.Independent(torch.distributions.Uniform(torch.zeros(2), 1.0), 1)


class UniformPrior:
    def sample(self, n):
        return torch.rand(n, 2)


def test_the_loss_compares_the_codes_with_samples_of_the_models_prior():
    class Model(Codes):
        def prior(self):
            return UniformPrior()

    batch = Batch(torch.rand(400, 2), None, torch.arange(400))
    loss = Wae(WaeConfig("gaussian", weight=3.0), DataSpec((2,)))
    torch.manual_seed(0)
    same = loss(Model(), batch, STEP)
    assert abs(float(same.values["mmd"])) < 0.01
    torch.testing.assert_close(same.total(), same.values["recon"] + 3 * same.values["mmd"])
    normal = Model()
    normal.latent = LatentSpec((2,), "normal")
    assert float(loss(normal, batch, STEP).values["mmd"]) > 0.3


def test_wae_makes_the_codes_of_an_autoencoder_normal(cli, runs):
    """Against the same autoencoder with a weight of 0."""
    from latentforge import Forge

    forge = Forge()
    spread = []
    for weight in (0.0, 300.0):
        run = forge.train(
            "ae",
            data="digits",
            model={"prior": "normal", "latent_dim": 4, "hidden": (64,)},
            loss={"name": "wae", "weight": weight},
            train={"epochs": 8},
            quiet=True,
        )
        images = forge.load_data("digits").split("test")
        x = torch.as_tensor(images.x).float() / 255
        z = run.load_model().encode(x).mode().detach()
        torch.manual_seed(0)
        spread.append(float(mmd(z, torch.randn_like(z), SCALES)))
    assert spread[1] < 0.2 * spread[0]
    assert run.metrics["test"]["recon"] > 0


def test_a_model_without_a_prior_is_refused(cli, work):
    refused = cli("train", "ae", "--data", "digits", "--loss", "wae")
    assert refused.code == 2
    assert "loss 'wae' needs prior" in refused.err
