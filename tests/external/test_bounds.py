"""The losses of latentforge-bounds equal independent computations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

from latentforge import DataSpec, LatentSpec
from latentforge.contracts import Batch, Step
from latentforge.latent import DiagonalGaussian

DATA = DataSpec((1, 2, 3))


class Linear(nn.Module):
    """A VAE of linear maps, with the prior N(0, I) in two dimensions."""

    latent = LatentSpec((2,), prior="normal")

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(6, 4), nn.Linear(2, 6)

    def encode(self, x):
        return DiagonalGaussian(*self.down(x.flatten(1)).chunk(2, 1))

    def decode_logits(self, z):
        return self.up(z).unflatten(1, DATA.shape)


@pytest.fixture
def parts(external):
    external("bounds")
    import latentforge_bounds

    torch.manual_seed(0)
    batch = Batch((torch.rand(5, *DATA.shape) > 0.5).float(), None, torch.arange(5))
    return latentforge_bounds, Linear(), batch


def log_weights(model, x, samples):
    """log p(x, z) - log q(z|x) of the samples that the loss draws after the same seed: (K, B)."""
    mean, log_var = model.down(x.flatten(1)).chunk(2, 1)
    scale = (log_var / 2).exp()
    weights = []
    for _ in range(samples):
        z = mean + scale * torch.randn_like(mean)
        log_x = Bernoulli(logits=model.decode_logits(z)).log_prob(x).sum((1, 2, 3))
        log_z = Normal(0.0, 1.0).log_prob(z) - Normal(mean, scale).log_prob(z)
        weights.append(log_x + log_z.sum(1))
    return torch.stack(weights)


@pytest.mark.parametrize("samples", [1, 7])
def test_the_bound_is_the_log_of_the_mean_weight(parts, samples):
    package, model, batch = parts
    config = package.ImportanceWeightedConfig(samples=samples)
    loss = package.build_importance_weighted(config, DATA)
    torch.manual_seed(1)
    found = loss(model, batch, Step(0, 1, 5, 1)).values
    torch.manual_seed(1)
    expected = log_weights(model, batch.x, samples).exp().mean(0).log().mean()
    torch.testing.assert_close(found["bound"], -expected)
    if samples == 1:  # the ELBO
        torch.testing.assert_close(found["bound"], found["recon"] + found["kl"])


def test_the_bound_approaches_log_p(parts):
    """log p(x) is integrated on a grid."""
    package, model, batch = parts
    loss = package.build_importance_weighted(package.ImportanceWeightedConfig(samples=20000), DATA)
    found = -loss(model, batch, Step(0, 1, 5, 1)).values["bound"]
    axis = torch.linspace(-6, 6, 241)
    z = torch.cartesian_prod(axis, axis)
    log_x = Bernoulli(logits=model.decode_logits(z)[:, None]).log_prob(batch.x).sum((2, 3, 4))
    log_z = Normal(0.0, 1.0).log_prob(z).sum(1)[:, None]
    log_p = (log_x + log_z).logsumexp(0) + 2 * math.log(0.05)
    torch.testing.assert_close(found, log_p.mean(), atol=0.02, rtol=0)


def test_the_mmd_is_that_of_its_kernel(external):
    external("bounds")
    torch.manual_seed(0)
    from latentforge_bounds.losses import mmd

    one, other = torch.randn(6, 3).double(), torch.randn(6, 3).double() + 1

    def kernel(a, b):
        scales = [2 * 3 * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
        return sum(c / (c + float((a - b).square().sum())) for c in scales)

    pairs = [(i, j) for i in range(6) for j in range(6)]
    same = [kernel(one[i], one[j]) + kernel(other[i], other[j]) for i, j in pairs if i != j]
    cross = [kernel(one[i], other[j]) for i, j in pairs]
    assert float(mmd(one, other)) == pytest.approx(sum(same) / 30 - 2 * sum(cross) / 36)
    trials = torch.stack([mmd(*torch.randn(2, 16, 3)) for _ in range(400)])
    assert abs(trials.mean()) < 4 * trials.std() / 20  # unbiased: 0 for equal distributions


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("bounds")
