"""nll against the exact log-likelihood of probabilistic PCA (Tipping and Bishop 1999)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian, Gaussian

SIGMA = 0.3


class Ppca(nn.Module):
    """x ~ N(W z + b, sigma^2 I). W has orthogonal columns, so the exact posterior is diagonal; the
    encoder shifts it by `shift` standard deviations and scales it by `width`."""

    latent = LatentSpec((2,), "normal")

    def __init__(self, shift: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        self.w = torch.tensor([[0.3, 0.0], [0.0, -0.2], [0.1, 0.2], [-0.3, 0.1], [0.1, 0.4]])
        self.w[:, 1] -= self.w[:, 0] * (self.w[:, 0] @ self.w[:, 1]) / self.w[:, 0].square().sum()
        self.b = torch.full((5,), 0.5)
        self.shift, self.width = shift, width
        self.rows: list[int] = []

    def encode(self, x):
        precision = self.w.square().sum(0) / SIGMA**2 + 1  # (2,)
        mean = (x - self.b) @ self.w / SIGMA**2 / precision
        log_var = (self.width**2 / precision).log().expand_as(mean)
        return DiagonalGaussian(mean + self.shift / precision.sqrt(), log_var)

    def decode(self, z):
        self.rows.append(len(z))
        return z @ self.w.T + self.b

    def exact_nll(self, x):
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(5)
        return -MultivariateNormal(self.b.double(), covariance.double()).log_prob(x.double())


@pytest.fixture
def x():
    return torch.rand(1100, 5, generator=torch.Generator().manual_seed(3))  # two batches


@pytest.fixture
def loss():
    module = nn.Module()
    module.likelihood = Gaussian(SIGMA)
    return module


def test_nll_is_within_three_standard_errors_of_the_exact_value(evaluate, x, loss):
    model = Ppca(shift=0.5, width=1.3)
    metrics, protocol = evaluate("nll elbo", model, x, loss=loss, nll={"samples": 1000})
    exact = model.exact_nll(x)
    assert metrics["nll"] == pytest.approx(float(exact.mean()), abs=3 * metrics["nll_se"])
    assert 0 < metrics["nll_se"] < 0.003
    assert metrics["nll"] < -metrics["elbo"] - 50 * metrics["nll_se"]  # the posterior is imperfect
    assert metrics["nll_image_se"] == pytest.approx(float(exact.std()) / 1100**0.5, rel=0.01)
    assert "K=1000 samples" in protocol["nll"]
    assert "1100 of 1100 examples" in protocol["nll"]


def test_the_effective_sample_size_matches_its_closed_form(evaluate, x, loss):
    """For q = N(0, s^2) and p = N(0, 1), E[w]^2 / E[w^2] = sqrt(2 s^2 - 1) / s^2 per dimension."""
    wider = 1.5
    metrics, _ = evaluate("nll", Ppca(width=wider), x[:100], loss=loss, nll={"samples": 5000})
    share = math.sqrt(2 * wider**2 - 1) / wider**2
    assert metrics["nll_ess"] == pytest.approx(5000 * share**2, rel=0.02)


def test_one_sample_of_the_exact_posterior_gives_the_exact_nll(evaluate, x, loss):
    model = Ppca()
    one, _ = evaluate("nll", model, x, loss=loss, nll={"samples": 1})
    assert one["nll"] == pytest.approx(float(model.exact_nll(x).mean()), abs=1e-5)
    assert "nll_se" not in one  # one sample has no standard error
    many, _ = evaluate("nll", model, x, loss=loss, nll={"samples": 50})
    assert many["nll"] == pytest.approx(one["nll"], abs=1e-5)
    assert many["nll_se"] < 1e-7
    assert many["nll_ess"] == pytest.approx(50)


def test_the_standard_error_matches_the_deviation_over_seeds(evaluate, x, loss):
    model = Ppca(shift=0.3, width=1.2)
    drawn = [
        evaluate("nll", model, x[:40], loss=loss, seed=seed, nll={"samples": 200})[0]
        for seed in range(60)
    ]
    scatter = torch.tensor([d["nll"] for d in drawn]).std()
    stated = torch.tensor([d["nll_se"] for d in drawn]).mean()
    assert float(scatter / stated) == pytest.approx(1, abs=0.3)  # 60 seeds: 3 x 9 %


@pytest.mark.parametrize(("images", "samples"), [(1, 7001), (3, 5000), (1100, 30)])
def test_samples_are_decoded_once_in_limited_batches(
    evaluate, x, loss, images, samples, monkeypatch
):
    from latentforge_plugins.importance_sampling import estimate

    monkeypatch.setattr(estimate, "VALUES", 500 * 5)
    model = Ppca(shift=0.3, width=1.2)
    metrics, protocol = evaluate("nll", model, x[:images], loss=loss, nll={"samples": samples})
    protocol = protocol["nll_ess"]
    assert max(model.rows) <= 500
    assert 0 <= sum(model.rows) - images * samples < 500 * 3  # the padding of the last round
    exact = float(model.exact_nll(x[:images]).mean())
    assert metrics["nll"] == pytest.approx(exact, abs=4 * metrics["nll_se"])
    assert ("nll_image_se" in metrics) == (images > 1)
    assert metrics["nll_ess"] <= samples
    assert "nll_ess: effective number of the K samples of an example, from 1 to K" in protocol


@pytest.mark.parametrize("count", [1, 4])  # with 1, one batch has no selected image
def test_images_are_selected_deterministically_from_the_whole_split(evaluate, x, loss, count):
    from latentforge_plugins.measures import select_random

    model = Ppca()
    one = {"samples": 1, "images": count}
    metrics, protocol = evaluate("nll", model, x, loss=loss, nll=one)
    chosen = select_random(count, 1100, torch.device("cpu"))
    exact = model.exact_nll(x[chosen])
    assert metrics["nll"] == pytest.approx(float(exact.mean()), abs=1e-5)
    assert f"{count} of 1100 examples" in protocol["nll"]
    again, _ = evaluate("nll", model, x, loss=loss, seed=7, nll=one)
    assert again["nll"] == pytest.approx(metrics["nll"], abs=1e-5)


def test_selected_images_have_no_stride():
    from latentforge_plugins.measures import select_random

    chosen = select_random(10_000, 60_000, torch.device("cpu")).nonzero().squeeze(1)
    assert len(chosen) == 10_000
    for period in (2, 3, 6, 10):
        share = (chosen % period).bincount() / 10_000
        assert float((share * period - 1).abs().max()) < 0.1
    assert bool(select_random(7, 7, torch.device("cpu")).all())


def test_extreme_importance_weights_stay_finite(evaluate, loss):
    metrics, _ = evaluate("nll", Ppca(shift=40), torch.rand(3, 5), loss=loss)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["nll_ess"] >= 1


def test_the_command_line_refuses_zero_samples(cli, runs):
    cli("train", "vae", "--data", "digits", "--epochs", 1, "--run", "runs/vae", "--quiet")
    answer = cli("evaluate", "runs/vae", "--measure", "nll", "--set", "nll.samples=0")
    assert answer.code == 2
    assert "nll.samples: must be greater than 0, got 0" in answer.err
    result = cli(
        *("evaluate", "runs/vae", "--measure", "nll", "--measure", "elbo"),
        *("--set", "nll.samples=100", "--set", "nll.images=50", "--json"),
    ).json
    assert result["metrics"]["nll"] < -result["metrics"]["elbo"]
    assert "K=100 samples" in result["protocol"]["nll"]
    refused = cli("evaluate", "runs/ae", "--measure", "nll")
    assert refused.code == 2
    assert "needs log_prob, prior;" in refused.err
