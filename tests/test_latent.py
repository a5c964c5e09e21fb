"""Posteriors, likelihoods and paths against closed forms and torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, Normal, kl_divergence

from latentforge import LatentSpec
from latentforge.contracts import Posterior, VariationalPosterior
from latentforge.errors import UsageError
from latentforge.latent import (
    LOG_VAR_RANGE,
    Bernoulli,
    DiagonalGaussian,
    Gaussian,
    Given,
    GivenClass,
    Point,
    StandardNormal,
    bernoulli_nll,
    closed_form_kl,
    declared_kl,
    gaussian_nll,
    kl_estimate,
    kl_values,
    log_ratio,
    prior_of,
    slerp,
    standard_normal_log_prob,
)


class Decoder(nn.Module):
    """z is the logits."""

    def decode_logits(self, z):
        return z

    def decode(self, z):
        return z.sigmoid()


@pytest.fixture
def images():
    return torch.rand(5, 3, 4, 6), torch.randn(5, 3, 4, 6) * 3


def test_bernoulli_nll_equals_torch_distributions_summed_over_pixels(images):
    x, logits = images
    expected = -TorchBernoulli(logits=logits, validate_args=False).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)


def test_bernoulli_nll_is_finite_if_the_sigmoid_saturates():
    logits = torch.full((1, 1, 2, 2), 200.0)
    assert bernoulli_nll(logits, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(800.0)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.5])
def test_gaussian_nll_equals_torch_distributions_with_its_constant(images, sigma):
    x, mean = images
    expected = -Normal(mean, sigma).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_nll(mean, x, sigma), expected)


def test_gaussian_nll_of_a_perfect_mean_is_its_constant():
    x = torch.rand(2, 1, 3, 3)
    expected = 0.5 * 9 * math.log(2 * math.pi * 0.25)
    torch.testing.assert_close(gaussian_nll(x, x, 0.5), torch.full((2,), expected))


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.3)])
def test_mean_nll_is_the_mean_of_nll(images, likelihood):
    x, z = images
    mean = likelihood.nll(Decoder(), z, x).mean()
    torch.testing.assert_close(likelihood.mean_nll(Decoder(), z, x), mean)


def test_a_point_is_a_posterior_without_a_kl():
    point = Point(torch.zeros(2, 3))
    assert isinstance(point, Posterior)
    assert not isinstance(point, VariationalPosterior)
    assert point.mode() is point.sample()


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4, 4)])
def test_diagonal_gaussian_equals_that_of_torch_distributions(shape):
    mean, log_var, z = torch.randn(3, *shape)
    posterior, truth = DiagonalGaussian(mean, log_var), Normal(mean, (log_var / 2).exp())
    assert isinstance(posterior, VariationalPosterior)
    assert torch.equal(posterior.mode(), mean)
    torch.testing.assert_close(posterior.kl(), kl_divergence(truth, Normal(0.0, 1.0)))
    torch.testing.assert_close(posterior.log_prob(z), truth.log_prob(z).flatten(1).sum(1))
    torch.manual_seed(0)
    drawn = posterior.sample()
    torch.manual_seed(0)
    torch.testing.assert_close(drawn, truth.rsample())


def test_the_kl_is_the_mean_log_ratio_of_samples_to_the_prior():
    mean, log_var = torch.tensor([[0.5, -1.0]]), torch.tensor([[-1.0, 0.7]])
    posterior = DiagonalGaussian(mean.expand(200_000, 2), log_var.expand(200_000, 2))
    z = posterior.sample()
    ratio = posterior.log_prob(z) - standard_normal_log_prob(z)
    error = 4 * float(ratio.std()) / math.sqrt(len(z))
    assert float(ratio.mean()) == pytest.approx(float(posterior.kl()[0].sum()), abs=error)


def test_a_sample_is_differentiable_in_mean_and_log_variance():
    mean, log_var = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True).unbind(0)

    def draw(mean, log_var):
        torch.manual_seed(0)
        return DiagonalGaussian(mean, log_var).sample()

    assert torch.autograd.gradcheck(draw, (mean, log_var))


@pytest.mark.parametrize("log_var", [-1e30, -100.0, 100.0, 1e30])
def test_extreme_log_variance_is_clamped_and_stays_finite(log_var):
    low, high = LOG_VAR_RANGE
    mean = torch.zeros(2, 3, requires_grad=True)
    posterior = DiagonalGaussian(mean, torch.full((2, 3), log_var))
    assert posterior.log_var.unique().tolist() == [low if log_var < 0 else high]
    z = posterior.sample()
    values = [z, posterior.kl(), posterior.log_prob(z)]
    sum(value.sum() for value in values).backward()
    assert all(value.isfinite().all() for value in (*values, mean.grad))


def test_standard_normal_log_prob_equals_torch_distributions():
    z = torch.randn(4, 2, 3, 3)
    expected = Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3))
    torch.testing.assert_close(standard_normal_log_prob(z), expected)


def test_learnt_sigma_gives_the_same_nll_and_has_a_gradient(images):
    x, mean = images
    log_sigma = torch.tensor(math.log(0.3), requires_grad=True)
    nll = gaussian_nll(mean, x, log_sigma.exp())
    torch.testing.assert_close(nll, gaussian_nll(mean, x, 0.3))
    nll.mean().backward()
    squared = (x - mean).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(log_sigma.grad, x[0].numel() - squared / 0.3**2)


@pytest.mark.parametrize(
    ("values", "seen"),
    [([0.0, 1.01], "from 0 to 1.01"), ([-0.5, 1.0], "from -0.5 to 1"), ([0.5, math.nan], "nan")],
)
def test_bernoulli_refuses_values_outside_0_to_1_with_their_range(values, seen):
    with pytest.raises(UsageError, match=seen) as caught:
        Bernoulli().check(torch.tensor(values))
    assert "gaussian" in caught.value.hint
    Bernoulli().check(torch.tensor([0.0, 1.0]))


def test_gaussian_accepts_any_finite_values():
    Gaussian().check(torch.tensor([-7.0, 300.0]))
    for value in (math.nan, math.inf):
        with pytest.raises(UsageError, match="finite"):
            Gaussian().check(torch.tensor([0.0, value]))


def test_slerp_moves_by_equal_angles_between_its_ends():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    path = slerp(a, b, torch.linspace(0, 1, 7))
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    angles = torch.atan2(path[:, 1], path[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 7))
    torch.testing.assert_close(path.norm(dim=1), torch.linspace(3, 1, 7))


@pytest.mark.parametrize(
    ("a", "b"), [([1.0, 2.0], [2.0, 4.0]), ([1.0, 0.0], [-1.0, 0.0]), ([0.0, 0.0], [1.0, 1.0])]
)
def test_slerp_is_linear_if_no_arc_is_defined(a, b):
    a, b, t = torch.tensor(a), torch.tensor(b), torch.linspace(0, 1, 5)
    line = (1 - t[:, None]) * a + t[:, None] * b
    torch.testing.assert_close(slerp(a, b, t), line)


def test_slerp_keeps_the_shape_of_spatial_codes():
    a, b = torch.randn(2, 4, 7, 7)
    assert slerp(a, b, torch.linspace(0, 1, 3)).shape == (3, 4, 7, 7)


# ---------------------------------------------------------------- priors


class Shifted(nn.Module):
    """A model whose prior is N(2, I)."""

    def __init__(self, prior):
        super().__init__()
        self.latent = LatentSpec((3,), prior)
        self.weight = nn.Parameter(torch.zeros(1))

    def prior(self):
        normal = Normal(2.0 + torch.zeros(3), 1.0)
        return Independent(normal, 1)


@pytest.fixture
def posterior():
    return DiagonalGaussian(torch.randn(4, 3), torch.randn(4, 3))


def test_the_standard_normal_prior_matches_torch_distributions():
    prior = StandardNormal((2, 3))
    z = torch.randn(7, 2, 3)
    expected = Normal(0.0, 1.0).log_prob(z).sum((1, 2))
    torch.testing.assert_close(prior.log_prob(z), expected)
    torch.manual_seed(3)
    sampled = prior.sample(7)
    torch.manual_seed(3)
    torch.testing.assert_close(sampled, torch.randn(7, 2, 3), rtol=0, atol=0)


def test_the_prior_of_a_model_is_on_the_device_of_the_model():
    model = Shifted("normal")
    assert isinstance(prior_of(model), StandardNormal)
    assert prior_of(model.to("meta")).sample(2).device.type == "meta"
    assert isinstance(prior_of(Shifted("own")), Independent)
    assert prior_of(Shifted(None)) is None


def test_the_kl_to_the_standard_normal_is_in_closed_form(posterior):
    model, z = Shifted("normal"), posterior.sample()
    torch.testing.assert_close(closed_form_kl(model, posterior), posterior.kl(), rtol=0, atol=0)
    torch.testing.assert_close(kl_estimate(model, posterior, z), posterior.kl().sum(1))


def test_the_kl_to_an_own_prior_is_estimated_without_bias(posterior):
    """The posterior has kl(), which is the KL to N(0, I) and thus not used."""
    model = Shifted("own")
    assert closed_form_kl(model, posterior) is None
    samples = [kl_estimate(model, posterior, posterior.sample()) for _ in range(4000)]
    values = torch.stack(samples)  # (4000, 4)
    q = Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    exact = kl_divergence(q, Normal(2.0, 1.0)).sum(1)
    error = values.std(0) / 4000**0.5
    assert bool(((values.mean(0) - exact).abs() < 4 * error).all())
    z = posterior.sample()
    torch.testing.assert_close(log_ratio(model, posterior, z), kl_estimate(model, posterior, z))


def test_a_posterior_without_kl_is_estimated_for_the_standard_normal_too(posterior):
    class OnlyDensity:
        log_prob = staticmethod(posterior.log_prob)

    model, z = Shifted("normal"), posterior.sample()
    expected = posterior.log_prob(z) - standard_normal_log_prob(z)
    torch.testing.assert_close(kl_estimate(model, OnlyDensity(), z), expected)


class WithKlPrior(Independent):
    """N(2, I), with a KL in closed form."""

    def kl(self, posterior):
        mean = torch.full_like(posterior.mean, 2.0)
        return posterior.kl_to(DiagonalGaussian(mean, torch.zeros_like(mean)))


class WithKl(Shifted):
    def prior(self):
        return WithKlPrior(super().prior().base_dist, 1)


def test_the_kl_between_gaussians_matches_torch_distributions(posterior):
    other = DiagonalGaussian(torch.randn(4, 3), torch.randn(4, 3))
    p, q = (Normal(each.mean, (0.5 * each.log_var).exp()) for each in (other, posterior))
    torch.testing.assert_close(posterior.kl_to(other), kl_divergence(q, p))
    standard = DiagonalGaussian(torch.zeros(4, 3), torch.zeros(4, 3))
    torch.testing.assert_close(posterior.kl_to(standard), posterior.kl())


def test_an_own_prior_may_know_the_kl_in_closed_form(posterior):
    model, z = WithKl("own"), posterior.sample()
    q = Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    exact = kl_divergence(q, Normal(2.0, 1.0))  # (4, 3)
    torch.testing.assert_close(closed_form_kl(model, posterior), exact)
    torch.testing.assert_close(kl_values(model, posterior, z), exact)
    torch.testing.assert_close(kl_estimate(model, posterior, z), exact.sum(1))


@pytest.mark.parametrize("cls", [Shifted, WithKl])
def test_the_prior_is_made_once_for_each_kl(cls, posterior, monkeypatch):
    """It may be as expensive as an encoder, and may update the state of one."""
    model, made, prior = cls("own"), [], cls.prior
    monkeypatch.setattr(cls, "prior", lambda self: made.append(1) or prior(self))
    for function in (kl_values, kl_estimate):
        function(model, posterior, posterior.sample())
        assert len(made) == 1
        made.clear()


def test_a_prior_whose_kl_is_none_is_estimated(posterior, monkeypatch):
    monkeypatch.setattr(WithKlPrior, "kl", None)
    assert closed_form_kl(WithKl("own"), posterior) is None


def test_only_a_declared_kl_is_used_for_any_model(posterior):
    estimated = {"prior", "log_prob", "variational"}
    torch.testing.assert_close(declared_kl(Shifted("normal"), posterior, {"kl"}), posterior.kl())
    assert declared_kl(Shifted("normal"), posterior, estimated) is None
    assert declared_kl(Shifted("own"), posterior, estimated) is None
    assert declared_kl(WithKl("own"), posterior, set()) is None
    exact = closed_form_kl(WithKl("own"), posterior)
    torch.testing.assert_close(declared_kl(WithKl("own"), posterior, estimated), exact)


def test_the_terms_of_a_gaussian_are_its_log_ratio_to_the_standard_normal(posterior):
    z = posterior.sample()
    q = Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    torch.testing.assert_close(
        posterior.log_ratio_terms(z), q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    )


@pytest.mark.parametrize(("cls", "has"), [(Shifted, False), (WithKl, True)])
def test_the_prior_under_a_class_has_the_kl_of_the_prior_of_labels(cls, has, posterior):
    class Conditional(cls):
        def given(self, y):
            return Given(self, y)

        def prior(self, y):
            return super().prior()

    view = GivenClass(Conditional("own"), torch.tensor(1))
    assert hasattr(view.prior(), "kl") == has
    exact = closed_form_kl(view, posterior)
    assert (exact is not None) == has
    if has:
        torch.testing.assert_close(exact, WithKl("own").prior().kl(posterior))


def test_importance_weights_need_a_prior(posterior):
    with pytest.raises(UsageError, match="the model has no prior"):
        log_ratio(Shifted(None), posterior, posterior.sample())
