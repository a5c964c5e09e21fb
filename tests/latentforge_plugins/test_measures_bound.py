"""recon, kl, elbo and active_units against torch.distributions and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from latentforge_plugins.training_loss.measure import describe_unit
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from latentforge import DataSpec, Forge, LatentSpec
from latentforge.config.validation import Faults, check
from latentforge.contracts import Terms
from latentforge.latent import DiagonalGaussian, Gaussian, Point
from latentforge.seeding import Noise


def build(kind: str, name: str, data: DataSpec, **options):
    """Build an untrained built-in component with the weights of seed 0."""
    entry = Forge().registry.get(kind, name)
    torch.manual_seed(0)
    return entry.spec.build(check(entry.spec.config, options, name, Faults()), data).eval()


@pytest.fixture(scope="module")
def data():
    x = torch.rand(1203, 1, 5, 4, generator=torch.Generator().manual_seed(1))  # two batches
    return x, DataSpec((1, 5, 4))


@pytest.fixture(scope="module")
def vae(data):
    model = build("models", "vae", data[1], encoder=[16], decoder=[16], latent_dim=3)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # moves posteriors away from the prior
    return model


@pytest.fixture(scope="module")
def expected(vae, data):
    """recon, recon_mean and kl by torch.distributions, z drawn as the contracts specify."""
    noise = Noise("cpu", "evaluate test", 0)
    recon, recon_mean, kl = [], [], []
    with torch.no_grad():
        for number, x in enumerate(data[0].split(1000), start=1):
            q = vae.encode(x)
            posterior = Independent(Normal(q.mean, (0.5 * q.log_var).exp()), 1)
            prior = Independent(Normal(torch.zeros_like(q.mean), 1.0), 1)
            noise.reseed(number)
            sample = q.mean + posterior.base_dist.stddev * torch.randn_like(q.mean)
            for z, values in ((sample, recon), (q.mean, recon_mean)):
                probability = vae.decode_logits(z).double().sigmoid()  # float32 would saturate
                each = F.binary_cross_entropy(probability, x.double(), reduction="none")
                values.append(each.sum((1, 2, 3)))
            kl.append(kl_divergence(posterior, prior))
    return {
        name: float(torch.cat(values).mean())
        for name, values in (("recon", recon), ("recon_mean", recon_mean), ("kl", kl))
    }


def test_the_bound_and_its_terms_match_torch_distributions(evaluate, vae, data, expected):
    names = "recon recon_mean kl elbo elbo_mean"
    metrics, protocol = evaluate(names, vae, data[0])
    assert metrics["recon"] == pytest.approx(expected["recon"], rel=1e-5)
    assert metrics["recon_mean"] == pytest.approx(expected["recon_mean"], rel=1e-5)
    assert metrics["kl"] == pytest.approx(expected["kl"], rel=1e-5)
    assert metrics["elbo"] == pytest.approx(-expected["recon"] - expected["kl"], rel=1e-5)
    assert metrics["elbo_mean"] == pytest.approx(-expected["recon_mean"] - expected["kl"], rel=1e-5)
    assert abs(expected["recon"] - expected["recon_mean"]) > 0.1  # the two metrics differ
    for name in ("recon", "elbo"):
        assert "one seeded posterior sample, Bernoulli from logits" in protocol[name]
        assert "z the posterior mean" in protocol[f"{name}_mean"]


@pytest.mark.parametrize("likelihood", [{}, {"likelihood": "gaussian", "sigma": 0.3}])
def test_minus_elbo_equals_the_loss_for_any_other_metrics(evaluate, vae, data, likelihood):
    loss = build("losses", "elbo", data[1], **likelihood)
    alone, _ = evaluate("elbo", vae, data[0], loss=loss)
    metrics, _ = evaluate("loss recon_mean recon elbo mse_per_pixel", vae, data[0], loss=loss)
    assert metrics["elbo"] == alone["elbo"]
    assert -metrics["elbo"] == pytest.approx(metrics["loss"], rel=1e-6)
    assert evaluate("elbo", vae, data[0], loss=loss, seed=1)[0] != alone


def test_kl_sums_over_all_dimensions_of_spatial_codes(evaluate, data):
    class Spatial(nn.Module):
        latent = LatentSpec((2, 3, 3), "normal")

        def encode(self, x):
            mean = x.flatten(1)[:, :18].view(-1, 2, 3, 3)
            return DiagonalGaussian(mean, torch.full_like(mean, math.log(0.25)))

    metrics, _ = evaluate("kl", Spatial(), data[0])
    squares = data[0].flatten(1)[:, :18].square().sum(1).mean()
    expected = 0.5 * (squares + 18 * (0.25 - 1 - math.log(0.25)))
    assert metrics["kl"] == pytest.approx(float(expected), rel=1e-5)


class Halved(nn.Module):
    """Reconstructs half of each value; has no logits."""

    latent = LatentSpec((20,))

    def encode(self, x):
        return Point(x.flatten(1))

    def decode(self, z):
        return (0.5 * z).view(-1, 1, 5, 4)


@pytest.mark.parametrize(("sigma", "named"), [(0.5, "0.5"), (1.0, "1")])
def test_recon_needs_no_logits_for_a_gaussian_likelihood(evaluate, data, sigma, named):
    metrics, protocol = evaluate("recon", Halved(), data[0], likelihood=Gaussian(sigma))
    normal = Normal(0.5 * data[0], sigma)
    expected = -normal.log_prob(data[0]).sum((1, 2, 3)).mean()
    assert metrics["recon"] == pytest.approx(float(expected), rel=1e-5)
    assert protocol["recon"].endswith(f"Gaussian of sigma {named}")


def test_the_protocol_names_the_z_of_each_model(evaluate, vae, data):
    for model, z in ((Halved(), "z the code"), (vae, "one seeded posterior sample")):
        protocol = evaluate("recon", model, data[0], likelihood=Gaussian())[1]["recon"]
        assert f"summed over pixels, {z}, " in protocol


def test_recon_and_elbo_decode_each_batch_once_per_z(evaluate, vae, data):
    """Four metrics on two batches decode the sample and the mean once per batch, and a second
    sample of the first batch."""
    calls = []
    handle = vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        evaluate("recon recon_mean elbo elbo_mean", vae, data[0])
    finally:
        handle.remove()
    assert len(calls) == 5


def test_the_sampling_error_is_the_deviation_of_repeated_evaluations(evaluate, vae, data):
    runs = [evaluate("recon elbo recon_mean", vae, data[0], seed=seed)[0] for seed in range(60)]
    for name in ("recon", "elbo"):
        values, errors = (np.array([run[key] for run in runs]) for key in (name, f"{name}_se"))
        assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=0.3)  # 3 standard errors
        assert errors.std() < 0.1 * errors.mean()
    assert "recon_mean_se" not in runs[0]
    assert "recon_se" not in evaluate("recon", Halved(), data[0], likelihood=Gaussian())[0]


def test_the_sampling_error_of_the_loss_is_the_deviation_of_repeated_evaluations(
    evaluate, vae, data
):
    loss = build("losses", "elbo", data[1])
    runs = [evaluate("loss", vae, data[0], loss=loss, seed=seed)[0] for seed in range(60)]
    values, errors = (np.array([run[key] for run in runs]) for key in ("loss", "loss_se"))
    assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=0.3)  # 3 standard errors
    assert errors.std() < 0.25 * errors.mean()  # sqrt(1 / 40) is expected, from 20 parts
    metrics, protocol = evaluate("loss", vae, data[0][:7], loss=loss)
    assert metrics["loss_se"] > 0
    assert protocol["loss"].endswith("loss_se: standard error of the sampling")


@pytest.mark.parametrize("declared", [{"likelihood": None}, {}])
def test_the_unit_of_a_loss_is_named_only_if_it_is_known(evaluate, vae, data, declared):
    class Velocity(torch.nn.Module):
        def forward(self, model, batch, step):
            return Terms({"error": model.decode(model.encode(batch.x).mode()).square().mean()})

    loss = Velocity()
    for name, value in declared.items():
        setattr(loss, name, value)
    _, protocol = evaluate("loss", vae, data[0], loss=loss)
    assert protocol["loss"].startswith("in the unit of the loss, mean over images, ")
    for name in ("elbo", "cross-entropy"):
        unit = describe_unit(build("losses", name, data[1]))
        assert unit == "nats per image"


def test_a_loss_without_samples_has_no_sampling_error(evaluate, data):
    autoencoder = build("models", "ae", data[1], hidden=[4], latent_dim=2)
    loss = build("losses", "reconstruction", data[1])
    metrics, protocol = evaluate("loss", autoencoder, data[0], loss=loss)
    assert set(metrics) == {"loss"}
    assert "loss_se" not in protocol["loss"]


def test_the_noise_depends_on_the_seed_and_the_split_and_under_protocol_1_on_the_seed(
    evaluate, vae, data
):
    def recon(**options):
        return evaluate("recon", vae, data[0], **options)[0]["recon"]

    assert recon(split="train") != recon(split="test") != recon(seed=1)
    assert recon(version=1, split="train") == recon(version=1) != recon(version=1, seed=1)
    assert recon() == recon() != recon(version=1)


def test_a_learnt_sigma_is_used_in_the_metric_and_its_protocol(evaluate, vae, data):
    loss = build("losses", "elbo", data[1], likelihood="gaussian", learn_sigma=True)
    loss.log_sigma.data.fill_(math.log(0.2))
    metrics, protocol = evaluate("recon_mean mse_per_pixel", vae, data[0], loss=loss)
    constant = 20 * (0.5 * math.log(2 * math.pi) + math.log(0.2))
    expected = 20 * metrics["mse_per_pixel"] / (2 * 0.2**2) + constant
    assert metrics["recon_mean"] == pytest.approx(expected, rel=1e-5)
    assert protocol["recon_mean"].endswith("Gaussian of sigma 0.2")


# ---------------------------------------------------------------- active units


class Scaled(nn.Module):
    """Codes around 100; dimension i is pixel i times `spread[i]`."""

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


def test_active_units_are_counted_by_variance_far_from_zero(evaluate):
    x = uniform(2345)  # three batches
    wanted = np.array([0.010001, 0.009999, 0.1, 0.0])
    model = Scaled((wanted / x.double().numpy().var(0)) ** 0.5)
    metrics, protocol = evaluate("active_units", model, x)
    codes = model.encode(x).mode().double().numpy()
    assert codes.var(0)[0] > 0.01 > codes.var(0)[1]
    assert metrics["active_units"] == 2
    assert "above 0.01 over the split" in protocol["active_units"]
    more, _ = evaluate("active_units", model, x, active_units={"threshold": 0.009})
    assert more["active_units"] == 3


def test_variances_near_the_threshold_are_exact_a_million_from_zero(evaluate):
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
    assert evaluate("active_units", model, x)[0]["active_units"] == active


def test_one_image_has_no_active_unit(evaluate):
    assert evaluate("active_units", Scaled([1.0] * 4), torch.rand(1, 4))[0]["active_units"] == 0
