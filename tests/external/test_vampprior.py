"""The VampPrior against torch.distributions, its moments, and a case in closed form."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from latentforge import DataSpec
from latentforge.latent import kl_estimate


@pytest.fixture
def model(external):
    external("vampprior")
    from latentforge_vampprior import VampVaeConfig, build

    torch.manual_seed(0)
    model = build(VampVaeConfig(latent_dim=2, pseudo_inputs=3), DataSpec((12,)))
    with torch.no_grad():
        model.encoder[-1].weight.mul_(8)  # components that differ
    return model


def mixture(model):
    parts = model.encode(model.pseudo_inputs())
    each = Independent(Normal(parts.mean, (0.5 * parts.log_var).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(3)), each)


def test_the_density_is_that_of_the_mixture_of_posteriors(model):
    z = 3 * torch.randn(50, 2)
    torch.testing.assert_close(model.prior().log_prob(z), mixture(model).log_prob(z))


def test_samples_have_the_moments_of_the_mixture(model):
    z, exact = model.prior().sample(40_000), mixture(model)
    assert ((z.mean(0) - exact.mean).abs() < 0.05 * exact.stddev).all()
    torch.testing.assert_close(z.var(0), exact.variance, rtol=0.05, atol=0)


def test_the_kl_is_zero_if_every_pseudo_input_is_the_example(model):
    x = torch.rand(1, 12)
    with torch.no_grad():
        model.pseudo_logits.copy_(x.logit().expand(3, 12))
    posterior = model.encode(x)
    kl = kl_estimate(model, posterior, posterior.sample())
    torch.testing.assert_close(kl, torch.zeros(1), rtol=0, atol=1e-5)


def test_the_kl_trains_the_pseudo_inputs(model):
    posterior = model.encode(torch.rand(4, 12))
    kl_estimate(model, posterior, posterior.sample()).sum().backward()
    assert model.pseudo_logits.grad.abs().sum() > 0


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("vampprior")
