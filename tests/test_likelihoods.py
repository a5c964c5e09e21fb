"""The likelihoods of real numbers and counts against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from latentforge.errors import UsageError
from latentforge.likelihoods import (
    Laplace,
    NegativeBinomial,
    Poisson,
    laplace_nll,
    negative_binomial_nll,
    poisson_nll,
)

MEANS = np.array([1e-6, 0.01, 0.7, 3.0, 40.0, 900.0, 2e4])
COUNTS = np.array([0, 1, 2, 7, 60, 1000, 20_000])


def pairs():
    """Every pair of a mean and a count: (49, 1) each, float64."""
    mean, x = np.meshgrid(MEANS, COUNTS)
    return torch.tensor(mean).reshape(-1, 1), torch.tensor(x, dtype=torch.float64).reshape(-1, 1)


@pytest.mark.parametrize("dispersion", [1e9, 1e12, 1e30])
def test_a_huge_dispersion_is_a_poisson_distribution(dispersion):
    """Training on counts without overdispersion increases the dispersion in each step."""
    mean, x = torch.tensor([[3.0], [0.7], [60.0]]), torch.tensor([[2.0], [0.0], [70.0]])
    r = torch.tensor(dispersion, requires_grad=True)
    found = negative_binomial_nll(mean, x, r)
    assert torch.allclose(found, poisson_nll(mean, x), atol=1e-4)
    found.sum().backward()
    assert r.grad == 0


@pytest.mark.parametrize("dispersion", [0.05, 1.0, 12.5, 1e4])
def test_negative_binomial_is_that_of_scipy_for_every_value(dispersion):
    mean, x = pairs()
    expected = -stats.nbinom.logpmf(x[:, 0], dispersion, dispersion / (dispersion + mean[:, 0]))
    found = negative_binomial_nll(mean, x, dispersion).numpy()
    finite = np.isfinite(expected)  # scipy underflows for counts that are far from the mean
    assert finite.sum() > 40
    assert np.abs(found - expected)[finite].max() < 1e-6 * np.maximum(1, expected[finite]).max()
    likely = expected < 20
    assert np.abs(found - expected)[likely].max() < 1e-6


def test_poisson_is_that_of_scipy_for_every_value():
    mean, x = pairs()
    expected = -stats.poisson.logpmf(x[:, 0], mean[:, 0])
    found = poisson_nll(mean, x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


def test_laplace_is_that_of_scipy_and_is_summed():
    mean, x = torch.randn(5, 2, 7, dtype=torch.float64), torch.randn(5, 2, 7, dtype=torch.float64)
    expected = -stats.laplace.logpdf(x, mean, 0.3).sum((1, 2))
    np.testing.assert_allclose(laplace_nll(mean, x, 0.3), expected, atol=1e-9)
    np.testing.assert_allclose(laplace_nll(mean, x, torch.tensor(0.3)), expected, atol=1e-5)


@pytest.mark.parametrize("dispersion", [0.5, 20.0, 1e6])
def test_float32_is_exact_up_to_its_rounding(dispersion):
    """Differences of log-gammas in float32 would be off by 0.01 to 1."""
    mean, x = (values.float() for values in pairs())
    found = negative_binomial_nll(mean, x, dispersion)
    assert found.dtype == torch.float32
    expected = negative_binomial_nll(mean.double(), x.double(), dispersion)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_large_dispersion_approaches_poisson():
    mean, x = pairs()
    found = negative_binomial_nll(mean, x, 1e9)
    torch.testing.assert_close(found, poisson_nll(mean, x), rtol=1e-3, atol=1e-3)


def test_each_value_may_have_its_dispersion():
    mean, x, r = torch.full((4, 3), 5.0), torch.poisson(torch.full((4, 3), 5.0)), torch.rand(3) + 1
    each = [negative_binomial_nll(mean[:, i : i + 1], x[:, i : i + 1], r[i]) for i in range(3)]
    torch.testing.assert_close(negative_binomial_nll(mean, x, r), sum(each))


@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial(2.0)])
def test_a_mean_of_zero_has_a_finite_value_and_gradient(likelihood):
    class Decoder:
        def decode(self, z):
            return torch.nn.functional.softplus(z)

    z = torch.tensor([[-200.0, 1.0]], requires_grad=True)  # its softplus is 0
    for x in (0.0, 3.0):
        value = likelihood.nll(Decoder(), z, torch.full((1, 2), x)).sum()
        [gradient] = torch.autograd.grad(value, z)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial(torch.tensor(2.0))])
def test_values_outside_the_support_are_refused(likelihood):
    likelihood.check(torch.tensor([[0.0, 3.0]]))
    for wrong in (-1.0, 0.5, float("nan")):
        with pytest.raises(UsageError, match="whole numbers from 0") as error:
            likelihood.check(torch.tensor([[0.0, wrong]]))
        assert "--set data.range=counts" in error.value.hint


def test_laplace_refuses_values_that_are_not_finite():
    Laplace().check(torch.tensor([-5.0, 7.5]))
    with pytest.raises(UsageError, match="finite"):
        Laplace().check(torch.tensor([0.0, float("nan")]))


def test_protocols_name_the_parameters():
    assert Laplace(0.25).describe() == "Laplace of scale 0.25"
    assert NegativeBinomial(3.0).describe() == "negative binomial with dispersion 3 (of all values)"
    text = NegativeBinomial(torch.tensor([1.0, 4.0])).describe()
    assert text == "negative binomial with dispersion 2 (geometric mean of 2)"
