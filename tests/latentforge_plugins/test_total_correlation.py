"""`beta-tc`: the three terms of the KL against a double loop, closed forms and their sum."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from latentforge_plugins.elbo.total_correlation import aggregate, decomposition
from torch.distributions import MultivariateNormal, Normal

from latentforge import DataSpec, Forge
from latentforge.contracts import Batch, Step
from latentforge.errors import ConfigError
from latentforge.latent import DiagonalGaussian

from ..plugin import plugin_of

REGISTRY = Forge().registry


def normal_of(posterior):
    return Normal(posterior.mean, (posterior.log_var / 2).exp())


@pytest.fixture
def posterior():
    torch.manual_seed(3)
    mean, log_var = torch.randn(2, 6, 4, dtype=torch.float64)
    return DiagonalGaussian(mean, log_var)


def test_the_three_terms_sum_to_the_sampled_kl(posterior):
    z = posterior.sample()
    parts = decomposition(posterior, z, images=1000)
    log_ratio = posterior.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(sum(parts.values()), log_ratio.mean())


def test_the_three_terms_match_a_double_loop_over_the_batch(posterior):
    z, images = posterior.sample(), 1000
    size, dims = z.shape
    q = normal_of(posterior)
    mi = tc = dim_kl = 0.0
    for i in range(size):
        joint, each = 0.0, [0.0] * dims
        for j in range(size):
            density = Normal(q.mean[j], q.stddev[j]).log_prob(z[i]).exp()
            joint += float(density.prod()) / (size * images)
            each = [e + float(d) / (size * images) for e, d in zip(each, density, strict=True)]
        product = sum(math.log(e) for e in each)
        mi += float(Normal(q.mean[i], q.stddev[i]).log_prob(z[i]).sum()) - math.log(joint)
        tc += math.log(joint) - product
        dim_kl += product - float(Normal(0.0, 1.0).log_prob(z[i]).sum())
    parts = decomposition(posterior, z, images)
    found = {name: float(value) for name, value in parts.items()}
    expected = {"mi": mi / size, "tc": tc / size, "dim_kl": dim_kl / size}
    assert found == pytest.approx(expected)


def test_equal_posteriors_leave_only_the_bias_of_the_estimate(posterior):
    """q(z) equals q(z|x): mi and tc are 0 except for the bias log(images)."""
    mean, log_var = (t[:1].expand(6, 4) for t in (posterior.mean, posterior.log_var))
    equal, images = DiagonalGaussian(mean, log_var), 500
    z = equal.sample()
    found = {name: float(part) for name, part in decomposition(equal, z, images).items()}
    sampled_kl = equal.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum(1)
    bias = math.log(images)
    expected = {
        "mi": bias,
        "tc": 3 * bias,
        "dim_kl": float(sampled_kl.mean()) - 4 * bias,
    }
    assert found == pytest.approx(expected)


def test_the_terms_of_a_gaussian_aggregate_match_closed_forms():
    """With means from N(0, S) and variance v, q(z) is N(0, S + v I), with known entropies."""
    torch.manual_seed(0)
    size, v = 2000, 0.5
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    means = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).sample((size,))
    posterior = DiagonalGaussian(means, torch.full_like(means, math.log(v)))
    parts = decomposition(posterior, posterior.sample(), images=size)  # the batch is the dataset
    total = covariance + v * torch.eye(2, dtype=torch.float64)
    bias = math.log(size)
    mi = 0.5 * torch.logdet(total) - math.log(v)
    tc = 0.5 * (total.diagonal().log().sum() - torch.logdet(total))
    dim_kl = 0.5 * (total.diagonal() - 1 - total.diagonal().log()).sum()
    assert float(parts["mi"]) - bias == pytest.approx(float(mi), abs=0.06)
    assert float(parts["tc"]) - bias == pytest.approx(float(tc), abs=0.06)
    assert float(parts["dim_kl"]) + 2 * bias == pytest.approx(float(dim_kl), abs=0.06)


def test_a_large_batch_in_chunks_gives_the_same_densities(posterior):
    torch.manual_seed(0)
    many = DiagonalGaussian(*torch.randn(2, 600, 4))
    z = many.sample()
    joint, each = aggregate(many, z, images=9)
    shuffled = torch.randperm(600)
    again = aggregate(many, z[shuffled], images=9)
    torch.testing.assert_close(again[0], joint[shuffled])
    torch.testing.assert_close(again[1], each[shuffled])
    one_by_one = torch.stack([aggregate(many, code[None], images=9)[0][0] for code in z[::50]])
    torch.testing.assert_close(joint[::50], one_by_one)


def test_spatial_codes_give_the_terms_of_flattened_codes():
    torch.manual_seed(0)
    mean, log_var, z = torch.randn(3, 5, 2, 3, 3)
    spatial = decomposition(DiagonalGaussian(mean, log_var), z, images=50)
    flat = DiagonalGaussian(mean.flatten(1), log_var.flatten(1))
    for name, part in decomposition(flat, z.flatten(1), images=50).items():
        torch.testing.assert_close(spatial[name], part)


def test_the_loss_uses_the_number_of_training_images_of_the_step():
    data = DataSpec((1, 4, 6))
    model, loss = REGISTRY.get("models", "vae").spec, REGISTRY.get("losses", "beta-tc").spec
    vae, beta_tc = model.build(model.config(), data), loss.build(loss.config(), data)
    batch = Batch(torch.rand(8, 1, 4, 6), None, torch.arange(8))
    mi = []
    for images in (50, 5000):
        torch.manual_seed(0)
        mi.append(beta_tc(vae, batch, Step(3, 100, images, 10)).values["mi"])
    torch.testing.assert_close(mi[1] - mi[0], torch.tensor(math.log(100)))


def test_only_beta_tc_refuses_posteriors_that_are_not_gaussian(tmp_path):
    vae = REGISTRY.get("models", "vae").spec
    other = replace(vae, name="other-vae", provides=vae.capabilities() - {"diagonal_gaussian"})
    forge = Forge([plugin_of(other)])
    with pytest.raises(ConfigError, match="diagonal_gaussian"):
        forge.train("other-vae", loss="beta-tc", data="digits", run=tmp_path / "a", quiet=True)
    elbo = REGISTRY.get("losses", "beta-elbo").spec
    assert elbo.needs(elbo.config()) <= forge.registry.get("models", "other-vae").spec.provides
