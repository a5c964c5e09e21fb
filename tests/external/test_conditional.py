"""The prior of latentforge-conditional is a Gaussian for each class, row by row."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from latentforge import DataSpec
from latentforge.latent import GivenClass, closed_form_kl

DATA = DataSpec((1, 4, 4), classes=("a", "b", "c"))


@pytest.fixture
def model(external):
    external("conditional")
    from latentforge_conditional import LabelVaeConfig, build

    torch.manual_seed(0)
    model = build(LabelVaeConfig(hidden=8, latent_dim=2), DATA).eval().requires_grad_(False)
    model.prior_of_class.weight.normal_()
    return model


def test_the_prior_is_that_of_each_label(model):
    y = torch.tensor([2, 0, 0, 1])
    z = torch.randn(4, 2)
    mean, log_var = model.prior_of_class.weight.chunk(2, 1)
    expected = Normal(mean[y], (log_var[y] / 2).exp()).log_prob(z).sum(1)
    torch.testing.assert_close(model.given(y).prior().log_prob(z), expected)


def test_samples_have_the_moments_of_their_class(model):
    y = torch.arange(3).repeat_interleave(20000)
    z = model.given(y).prior().sample(len(y)).view(3, 20000, 2)
    mean, log_var = model.prior_of_class.weight.chunk(2, 1)
    scale = (log_var / 2).exp()
    assert ((z.mean(1) - mean).abs() < 0.05 * scale).all()
    assert ((z.std(1) / scale - 1).abs() < 0.05).all()


def test_the_kl_to_the_prior_of_each_label_is_in_closed_form(model):
    x, y = torch.rand(4, 1, 4, 4), torch.tensor([2, 0, 0, 1])
    mean, log_var = model.prior_of_class.weight.chunk(2, 1)

    def check(view, y):
        posterior = view.encode(x)
        q = Normal(posterior.mean, (posterior.log_var / 2).exp())
        expected = kl_divergence(q, Normal(mean[y], (log_var[y] / 2).exp()))
        torch.testing.assert_close(closed_form_kl(view, posterior), expected)

    check(model.given(y), y)
    check(GivenClass(model, torch.tensor(1)), torch.ones_like(y))  # what explorers use


def test_a_row_depends_on_its_own_label(model):
    x, y = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 1])
    view = model.given(y)
    z = view.encode(x).mode()
    together = view.decode(z)
    for i in range(4):
        alone = model.given(y[i : i + 1])
        torch.testing.assert_close(alone.encode(x[i : i + 1]).mode(), z[i : i + 1])
        torch.testing.assert_close(alone.decode(z[i : i + 1]), together[i : i + 1])
    assert not torch.allclose(model.given(y.flip(0)).decode(z)[0], together[0])


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("conditional")
