"""The prior of latentforge-realnvp is a normalised density, and its samples are of this density."""

from __future__ import annotations

import math

import pytest
import torch

from latentforge import DataSpec


@pytest.fixture
def flow(external):
    external("realnvp")
    from latentforge_realnvp import RealNvpVaeConfig, build

    def make(size):
        torch.manual_seed(0)
        model = build(RealNvpVaeConfig(latent_dim=size, hidden=8), DataSpec((6,)))
        flow = model.prior().requires_grad_(False)
        for net in flow.nets:
            net[-1].weight.normal_(std=0.3)
            net[-1].bias.normal_(std=0.3)
        return flow.double()

    return make


def base(flow, z):
    """The noise of a code, by the couplings one after another."""
    for i in range(len(flow.nets)):
        log_scale, shift = flow.coupling(i, z)
        z = z * log_scale.exp() + shift
    return z


def test_log_prob_is_the_change_of_variables(flow):
    """The Jacobian is computed by autograd."""
    prior = flow(5)
    for z in torch.randn(4, 5).double():
        jacobian = torch.autograd.functional.jacobian(lambda v: base(prior, v[None])[0], z)
        noise = base(prior, z[None])[0]
        expected = -0.5 * (noise.square().sum() + 5 * math.log(2 * math.pi))
        expected += jacobian.slogdet().logabsdet
        torch.testing.assert_close(prior.log_prob(z[None])[0], expected)


def test_the_density_integrates_to_one(flow):
    axis = torch.linspace(-15, 15, 601).double()
    density = flow(2).log_prob(torch.cartesian_prod(axis, axis)).exp()
    assert float(density.sum() * 0.05**2) == pytest.approx(1, abs=2e-3)


def test_the_couplings_map_samples_back_to_the_noise(flow):
    prior = flow(5)
    torch.manual_seed(3)
    z = prior.sample(1000).double()
    torch.manual_seed(3)
    torch.testing.assert_close(base(prior, z), torch.randn(1000, 5).double(), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("realnvp")
