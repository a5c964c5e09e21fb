"""recon, kl, elbo and active_units against torch.distributions and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from latentforge import DataSpec, Forge, LatentSpec
from latentforge.config.validation import Faults, check
from latentforge.latent import DiagonalGaussian, Gaussian, Point
from latentforge.seeding import Noise


def built(kind: str, name: str, data: DataSpec, **options):
    """An untrained built-in component, its weights those of seed 0."""
    entry = Forge().registry.get(kind, name)
    torch.manual_seed(0)
    return entry.spec.build(check(entry.spec.config, options, name, Faults()), data).eval()


@pytest.fixture(scope="module")
def data():
    x = torch.rand(1203, 1, 5, 4, generator=torch.Generator().manual_seed(1))  # two batches
    return x, DataSpec((1, 5, 4))


@pytest.fixture(scope="module")
def vae(data):
    model = built("models", "vae", data[1], encoder=[16], decoder=[16], latent_dim=3)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # so that posteriors differ from the prior
    return model


@pytest.fixture(scope="module")
def expected(vae, data):
    """recon, recon_mean and kl by torch.distributions, z drawn as the contracts promise."""
    noise = Noise("cpu", "evaluate", 0)
    recon, recon_mean, kl = [], [], []
    with torch.no_grad():
        for number, x in enumerate(data[0].split(1000), start=1):
            q = vae.encode(x)
            posterior = Independent(Normal(q.mean, (0.5 * q.log_var).exp()), 1)
            prior = Independent(Normal(torch.zeros_like(q.mean), 1.0), 1)
            noise.reseed(number)
            sample = q.mean + posterior.base_dist.stddev * torch.randn_like(q.mean)
            for z, where in ((sample, recon), (q.mean, recon_mean)):
                probability = vae.decode_logits(z).double().sigmoid()  # float32 would saturate
                each = F.binary_cross_entropy(probability, x.double(), reduction="none")
                where.append(each.sum((1, 2, 3)))
            kl.append(kl_divergence(posterior, prior))
    return {
        name: float(torch.cat(values).mean())
        for name, values in (("recon", recon), ("recon_mean", recon_mean), ("kl", kl))
    }


def test_the_bound_and_its_parts_are_those_of_torch_distributions(measured, vae, data, expected):
    names = "recon recon_mean kl elbo elbo_mean"
    figures, protocol = measured(names, vae, data[0])
    assert figures["recon"] == pytest.approx(expected["recon"], rel=1e-5)
    assert figures["recon_mean"] == pytest.approx(expected["recon_mean"], rel=1e-5)
    assert figures["kl"] == pytest.approx(expected["kl"], rel=1e-5)
    assert figures["elbo"] == pytest.approx(-expected["recon"] - expected["kl"], rel=1e-5)
    assert figures["elbo_mean"] == pytest.approx(-expected["recon_mean"] - expected["kl"], rel=1e-5)
    assert abs(expected["recon"] - expected["recon_mean"]) > 0.1  # two different figures
    for name in ("recon", "elbo"):
        assert "one seeded posterior sample, Bernoulli from logits" in protocol[name]
        assert "z the posterior mean" in protocol[f"{name}_mean"]


@pytest.mark.parametrize("likelihood", [{}, {"likelihood": "gaussian", "sigma": 0.3}])
def test_minus_elbo_is_the_loss_with_the_same_noise_whatever_else_is_measured(
    measured, vae, data, likelihood
):
    loss = built("losses", "elbo", data[1], **likelihood)
    alone, _ = measured("elbo", vae, data[0], loss=loss)
    figures, _ = measured("loss recon_mean recon elbo mse_per_pixel", vae, data[0], loss=loss)
    assert figures["elbo"] == alone["elbo"]
    assert -figures["elbo"] == pytest.approx(figures["loss"], rel=1e-6)
    assert measured("elbo", vae, data[0], loss=loss, seed=1)[0] != alone


def test_kl_sums_over_every_dimension_of_a_spatial_code(measured, data):
    class Spatial(nn.Module):
        latent = LatentSpec((2, 3, 3), "normal")

        def encode(self, x):
            mean = x.flatten(1)[:, :18].view(-1, 2, 3, 3)
            return DiagonalGaussian(mean, torch.full_like(mean, math.log(0.25)))

    figures, _ = measured("kl", Spatial(), data[0])
    squares = data[0].flatten(1)[:, :18].square().sum(1).mean()
    expected = 0.5 * (squares + 18 * (0.25 - 1 - math.log(0.25)))
    assert figures["kl"] == pytest.approx(float(expected), rel=1e-5)


class Halved(nn.Module):
    """Gives back half of each value; has no logits."""

    latent = LatentSpec((20,))

    def encode(self, x):
        return Point(x.flatten(1))

    def decode(self, z):
        return (0.5 * z).view(-1, 1, 5, 4)


@pytest.mark.parametrize(("sigma", "named"), [(0.5, "0.5"), (None, "1")])
def test_recon_needs_no_logits_where_the_likelihood_is_gaussian(measured, data, sigma, named):
    loss = nn.Module()
    if sigma is not None:
        loss.likelihood = Gaussian(sigma)
    figures, protocol = measured("recon", Halved(), data[0], loss=loss)
    normal = Normal(0.5 * data[0], sigma or 1.0)
    expected = -normal.log_prob(data[0]).sum((1, 2, 3)).mean()
    assert figures["recon"] == pytest.approx(float(expected), rel=1e-5)
    assert protocol["recon"].endswith(f"Gaussian of sigma {named}")


def test_where_nothing_is_sampled_the_protocol_does_not_say_so(measured, vae, data):
    for model, z in ((Halved(), "z the code"), (vae, "one seeded posterior sample")):
        assert f"summed over pixels, {z}, " in measured("recon", model, data[0])[1]["recon"]


def test_recon_and_elbo_decode_a_batch_once_for_each_z(measured, vae, data):
    """Four figures of two batches: one decode of the sample and one of the mean in each."""
    calls = []
    handle = vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        measured("recon recon_mean elbo elbo_mean", vae, data[0])
    finally:
        handle.remove()
    assert len(calls) == 4


def test_a_learnt_sigma_is_the_one_in_the_figure_and_in_its_protocol(measured, vae, data):
    loss = built("losses", "elbo", data[1], likelihood="gaussian", learn_sigma=True)
    loss.log_sigma.data.fill_(math.log(0.2))
    figures, protocol = measured("recon_mean mse_per_pixel", vae, data[0], loss=loss)
    constant = 20 * (0.5 * math.log(2 * math.pi) + math.log(0.2))
    expected = 20 * figures["mse_per_pixel"] / (2 * 0.2**2) + constant
    assert figures["recon_mean"] == pytest.approx(expected, rel=1e-5)
    assert protocol["recon_mean"].endswith("Gaussian of sigma 0.2")


# ---------------------------------------------------------------- active units


class Scaled(nn.Module):
    """Codes far from 0 whose dimensions have the standard deviations `spread`."""

    latent = LatentSpec((4,), "normal")

    def __init__(self, spread):
        super().__init__()
        self.spread = torch.tensor(spread, dtype=torch.float32)

    def encode(self, x):
        mean = 100.0 + x * self.spread
        return DiagonalGaussian(mean, torch.zeros_like(mean))


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    x = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    return (x - x.min(0).values) / (x.max(0).values - x.min(0).values)


def test_active_units_are_counted_by_variance_however_far_the_codes_are_from_zero(measured):
    x = uniform(2345)  # three batches
    wanted = np.array([0.010001, 0.009999, 0.1, 0.0])
    model = Scaled((wanted / x.double().numpy().var(0)) ** 0.5)
    figures, protocol = measured("active_units", model, x)
    codes = model.encode(x).mode().double().numpy()
    assert codes.var(0)[0] > 0.01 > codes.var(0)[1]
    assert figures["active_units"] == 2
    assert "above 0.01 over the split" in protocol["active_units"]
    more, _ = measured("active_units", model, x, active_units={"threshold": 0.009})
    assert more["active_units"] == 3


def test_variances_next_to_the_threshold_are_told_apart_a_million_from_zero(measured):
    class Many(Scaled):
        def encode(self, x):
            mean = 1e6 + x.repeat(1, 50) * self.spread  # (B, 200)
            return DiagonalGaussian(mean, torch.zeros_like(mean))

    x = uniform(2345)
    wanted = np.linspace(0.0095, 0.0105, 200)
    model = Many((wanted / np.tile(x.double().numpy().var(0), 50)) ** 0.5)
    variances = model.encode(x).mode().double().numpy().var(0)
    active = (variances > 0.01).sum()
    assert 50 < active < 200
    assert measured("active_units", model, x)[0]["active_units"] == active


def test_one_image_has_no_active_unit(measured):
    assert measured("active_units", Scaled([1.0] * 4), torch.rand(1, 4))[0]["active_units"] == 0
