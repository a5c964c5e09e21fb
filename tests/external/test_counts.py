"""The VAE of counts in tests/external/latentforge-counts."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from torch.distributions import Normal, kl_divergence

from latentforge import DataSpec
from latentforge.contracts import RANGES, Batch, Step


@pytest.fixture
def package(external):
    return external("counts")


@pytest.fixture
def parts(package):
    return importlib.import_module("latentforge_counts.parts")


@pytest.mark.parametrize("dispersion", [0.3, 8.0, 400.0])
def test_the_likelihood_is_that_of_scipy(parts, dispersion):
    mean = torch.logspace(-2, 3, 40).view(5, 2, 4).requires_grad_()
    x = torch.poisson(mean.detach())
    likelihood = parts.NegativeBinomial()
    likelihood.log_dispersion.data.fill_(np.log(dispersion))
    nll = likelihood.nll(SimpleNamespace(decode=lambda z: mean), None, x)
    share = dispersion / (dispersion + mean.detach().double().numpy())
    expected = -nbinom.logpmf(x.numpy(), dispersion, share).sum((1, 2))
    assert nll.detach().numpy() == pytest.approx(expected, rel=1e-3)
    nll.sum().backward()
    assert mean.grad.isfinite().all()
    assert likelihood.log_dispersion.grad.isfinite()


def test_the_loss_is_the_negative_elbo(package, parts):
    data = DataSpec((1, 30), "signal", range=RANGES["counts"])
    model = parts.CountVae(package.CountVaeConfig(), data)
    loss = parts.CountElbo(package.CountElboConfig())
    x = torch.poisson(torch.full((6, 1, 30), 4.0))
    torch.manual_seed(0)
    terms = loss(model, Batch(x, None, torch.arange(6)), Step(0, 1, 6, 1))
    torch.manual_seed(0)
    posterior = model.encode(x)
    z = posterior.sample()
    q = Normal(posterior.mean, (posterior.log_var / 2).exp())
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(terms.total(), (loss.likelihood.nll(model, z, x) + kl).mean())


def test_the_spectra_have_the_stated_mean_and_dispersion(package):
    config = package.SpectraConfig(examples=4000)
    arrays = package.load(config, "train")
    place = np.linspace(0, 1, config.length)
    position, brightness = (arrays.factors[name][:, None] for name in ("position", "brightness"))
    lines = [np.exp(-((place - position - shift) ** 2) / (2 * 0.03**2)) for shift in (0, 0.2)]
    mean = 1 + brightness * (lines[0] + 0.6 * arrays.y[:, None] * lines[1])
    scaled = (arrays.x - mean) / np.sqrt(mean + mean**2 / config.dispersion)
    assert scaled.mean() == pytest.approx(0, abs=0.01)
    assert scaled.std() == pytest.approx(1, abs=0.01)
    assert package.load(config, "test").x.shape == (1000, config.length)


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("counts")
