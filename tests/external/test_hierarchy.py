"""The hierarchical VAE against a change of variables by autograd, and sums over a grid."""

import pytest
import torch
from torch.distributions import Normal

from latentforge import DataSpec
from latentforge.latent import kl_estimate, standard_normal_log_prob


@pytest.fixture
def model(external):
    external("hierarchy")
    from latentforge_hierarchy import TwoLevelConfig, build

    torch.manual_seed(0)
    model = build(TwoLevelConfig(top=1, bottom=1, hidden=16), DataSpec((12,)))
    with torch.no_grad():  # groups that depend on each other visibly
        model.top.weight.mul_(4)
        for layers in (model.bottom, model.bottom_prior):
            layers[0].weight.mul_(4)
            layers[-1].weight.mul_(2)
    return model


def grid():
    line = torch.linspace(-9, 9, 601)
    return torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2


def test_the_noise_gives_the_hierarchical_prior(model):
    for u in torch.randn(5, 1, 2):
        z = torch.cat(model.latents(u), 1)
        jacobian = torch.autograd.functional.jacobian(
            lambda u: torch.cat(model.latents(u), 1)[0], u
        )
        by_change = standard_normal_log_prob(u) - jacobian[:, 0].det().abs().log()
        mean, log_var = model.bottom_prior(z[:, :1]).chunk(2, dim=1)
        bottom = Normal(mean, (0.5 * log_var).exp()).log_prob(z[:, 1:])
        exact = Normal(0, 1).log_prob(z[:, 0]) + bottom[:, 0]
        torch.testing.assert_close(by_change, exact)


@torch.no_grad()
def test_the_posterior_is_normalised_and_its_terms_are_the_kl_of_each_group(model):
    (u, cell), x = grid(), 4 * torch.rand(1, 12)
    log_q = model.encode(x.expand(len(u), -1)).log_prob(u)
    assert abs(float(log_q.exp().sum() * cell) - 1) < 1e-4
    exact = float((log_q.exp() * (log_q - standard_normal_log_prob(u))).sum() * cell)

    many = model.encode(x.expand(160_000, -1))
    samples = many.sample()
    terms, estimate = many.log_ratio_terms(samples), kl_estimate(model, many, samples)
    torch.testing.assert_close(terms.sum(1), estimate, rtol=1e-4, atol=1e-4)
    assert many.bottom(samples[:, :1]).kl().std() > 0.01  # it depends on the sample of the top
    top = float(many.top.kl()[0])
    error = terms.std(0) / len(terms) ** 0.5
    for group, expected in enumerate((top, exact - top)):
        assert abs(float(terms[:, group].mean()) - expected) < 4 * error[group]
        assert error[group] < 0.02 * expected


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("hierarchy")
