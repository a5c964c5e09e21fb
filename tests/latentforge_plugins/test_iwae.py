"""`iwae` against the ELBO, the exact likelihood of probabilistic PCA and an independent sum."""

from __future__ import annotations

import math

import pytest
import torch
from latentforge_plugins.elbo import importance_weighted
from latentforge_plugins.elbo.config import IwaeConfig
from latentforge_plugins.elbo.importance_weighted import Iwae
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from latentforge import DataSpec, LatentSpec
from latentforge.contracts import Batch, Step
from latentforge.latent import DiagonalGaussian, Given

SIGMA = 0.4


class Ppca(nn.Module):
    """x ~ N(W z + 1/2, SIGMA^2 I), z ~ N(shift, I), with an encoder that is wrong on purpose."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.latent = LatentSpec((2,), "own" if shift else "normal")
        self.shift = shift
        self.w = nn.Parameter(torch.tensor([[0.6, 0.1], [0.0, -0.4], [0.3, 0.5]]))

    def prior(self):
        return Independent(Normal(torch.full((2,), self.shift), 1.0), 1)

    def encode(self, x):
        centre = self.decode(torch.full((2,), self.shift))
        mean = (x - centre) @ self.w + self.shift
        return DiagonalGaussian(mean, torch.full_like(mean, -0.8))

    def decode(self, z):
        return z @ self.w.T + 0.5

    def exact(self, x):
        """The mean of log p(x)."""
        centre = self.decode(torch.full((2,), self.shift))
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(3)
        return MultivariateNormal(centre, covariance).log_prob(x).mean()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(5)
    return Batch(torch.rand(6, 3, generator=generator), None, torch.arange(6))


STEP = Step(1, 10, 6, 1)


def bound(model, batch, samples, **options):
    loss = Iwae(IwaeConfig("gaussian", SIGMA, samples=samples, **options), DataSpec((3,)))
    return loss(model, batch, STEP)


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_one_sample_gives_the_estimate_of_the_elbo(batch, shift):
    model = Ppca(shift)
    torch.manual_seed(0)
    values = bound(model, batch, 1).values
    torch.manual_seed(0)
    q = model.encode(batch.x)
    z = q.sample()
    log_p = Normal(model.decode(z), SIGMA).log_prob(batch.x).sum(1) + model.prior().log_prob(z)
    elbo = (log_p - q.log_prob(z)).mean()
    torch.testing.assert_close(values["iwae"], -elbo)
    torch.testing.assert_close(values["recon"] + values["kl"], values["iwae"])


@pytest.mark.parametrize("values", [1, 2 * 18, 3 * 18, 1000])  # 1, 2, 3 and 7 samples at once
def test_the_bound_equals_the_logarithm_of_the_mean_weight(batch, values, monkeypatch):
    monkeypatch.setattr(importance_weighted, "VALUES", values)
    model = Ppca(1.5)
    torch.manual_seed(0)
    terms = bound(model, batch, 7)
    torch.manual_seed(0)
    mean, log_var = (v.double() for v in vars(model.encode(batch.x)).values())
    weights = torch.zeros(6, dtype=torch.float64)
    for _ in range(7):
        z = model.encode(batch.x).sample().double()
        log_p = Normal(z @ model.w.T.double() + 0.5, SIGMA).log_prob(batch.x.double()).sum(1)
        log_p_z = Normal(1.5, 1.0).log_prob(z).sum(1)
        log_q = Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(1)
        weights += (log_p + log_p_z - log_q).exp() / 7
    expected = -weights.log().mean().item()
    assert terms.values["iwae"].item() == pytest.approx(expected, rel=1e-5)
    assert terms.total().requires_grad
    assert terms.weights == {"recon": 0.0, "kl": 0.0}
    torch.testing.assert_close(terms.total(), terms.values["iwae"])


@torch.no_grad()
def test_more_samples_give_a_tighter_bound(batch):
    """Theorem 1 of Burda et al. 2016: L_1 <= L_2 <= ... <= log p(x), with L_K towards log p(x)."""
    model = Ppca(1.5)
    torch.manual_seed(0)
    means, errors = [], []
    for samples, copies in ((1, 200), (2, 100), (8, 50), (64, 15)):
        many = Batch(batch.x.repeat(copies, 1), None, torch.arange(6 * copies))
        drawn = torch.stack([-bound(model, many, samples).values["iwae"] for _ in range(20)])
        means.append(float(drawn.mean()))
        errors.append(float(drawn.std()) / math.sqrt(len(drawn)))
    exact = float(model.exact(batch.x))
    for lower, higher, error in zip(means, [*means[1:], exact], errors, strict=True):
        assert lower < higher - 3 * error or higher == exact
    assert means[-1] == pytest.approx(exact, abs=0.02)
    assert means[-1] < exact + 3 * errors[-1]
    assert means[0] < exact - 0.1  # the posterior is imperfect


def test_each_sample_is_decoded_under_the_label_of_its_image(batch):
    class Labelled(nn.Module):
        """A Ppca of x - y."""

        def __init__(self):
            super().__init__()
            self.ppca, self.latent = Ppca(), Ppca().latent

        def given(self, y):
            return Given(self, y)

        def prior(self, y):
            return self.ppca.prior()

        def encode(self, x, y):
            return self.ppca.encode(x - y[:, None])

        def decode(self, z, y):
            return self.ppca.decode(z) + y[:, None]

    torch.manual_seed(0)
    expected = bound(Ppca(), batch, 5).values
    y = torch.arange(6)
    torch.manual_seed(0)
    shifted = Batch(batch.x + y[:, None], None, batch.index)
    torch.testing.assert_close(bound(Labelled().given(y), shifted, 5).values, expected)


def test_a_learnt_sigma_is_logged_and_trained(batch):
    loss = Iwae(IwaeConfig("gaussian", SIGMA, learn_sigma=True, samples=3), DataSpec((3,)))
    terms = loss(Ppca(), batch, STEP)
    terms.total().backward()
    assert loss.log_sigma.grad is not None
    assert terms.values["sigma"].item() == pytest.approx(SIGMA)


def test_the_command_line_trains_and_evaluates_it(cli, runs):
    options = ("--loss", "iwae", "--set", "loss.samples=5", "--set", "model.prior=flow")
    answer = cli("train", "vae", "--data", "digits", *options, "--epochs", 1, "--run", "runs/iwae")
    assert answer.code == 0, answer.err
    metrics = cli("evaluate", "runs/iwae", "--measure", "loss", "--measure", "elbo", "--json").json
    assert -metrics["metrics"]["loss"] > metrics["metrics"]["elbo"]
    refused = cli("train", "ae", "--data", "digits", "--loss", "iwae")
    assert refused.code == 2
    assert "loss 'iwae' needs log_prob, prior" in refused.err
