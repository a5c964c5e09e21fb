"""Posteriors, likelihoods and paths against closed forms and torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Normal

from latentforge.contracts import Posterior, VariationalPosterior
from latentforge.latent import Bernoulli, Gaussian, Point, bernoulli_nll, gaussian_nll, slerp


class Decoder(nn.Module):
    """z is the logits."""

    def decode_logits(self, z):
        return z

    def decode(self, z):
        return z.sigmoid()


@pytest.fixture
def images():
    return torch.rand(5, 3, 4, 6), torch.randn(5, 3, 4, 6) * 3


def test_bernoulli_nll_is_that_of_torch_distributions_summed_over_pixels(images):
    x, logits = images
    expected = -TorchBernoulli(logits=logits, validate_args=False).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)


def test_bernoulli_nll_stays_finite_where_the_sigmoid_saturates():
    logits = torch.full((1, 1, 2, 2), 200.0)
    assert bernoulli_nll(logits, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(800.0)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.5])
def test_gaussian_nll_is_that_of_torch_distributions_with_its_constant(images, sigma):
    x, mean = images
    expected = -Normal(mean, sigma).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_nll(mean, x, sigma), expected)


def test_gaussian_nll_of_a_perfect_mean_is_the_entropy_like_constant():
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
def test_slerp_is_the_straight_line_where_no_arc_is_defined(a, b):
    a, b, t = torch.tensor(a), torch.tensor(b), torch.linspace(0, 1, 5)
    line = (1 - t[:, None]) * a + t[:, None] * b
    torch.testing.assert_close(slerp(a, b, t), line)


def test_slerp_keeps_the_shape_of_spatial_codes():
    assert slerp(torch.randn(4, 7, 7), torch.randn(4, 7, 7), torch.linspace(0, 1, 3)).shape == (
        3,
        4,
        7,
        7,
    )
