"""Learnt priors of `vae`, and all that uses a model's own prior, against closed forms, automatic
differentiation and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from latentforge_plugins.vae.config import VaeConfig
from latentforge_plugins.vae.priors import Flow, FlowVae, Mixture, VampVae
from scipy.stats import ks_2samp
from torch.distributions import Independent, MultivariateNormal, Normal

from latentforge import DataSpec, Forge, LatentSpec
from latentforge.config.resolve import check_options
from latentforge.contracts import Batch, Step
from latentforge.errors import ConfigError
from latentforge.latent import DiagonalGaussian

SHAPE = (1, 6, 6)
DATA = DataSpec(SHAPE, "image", ("a", "b"))
SMALL = {"encoder": (12,), "decoder": (12,), "latent_dim": 4}
SAMPLES = 4000


def trained_flow(size=4, couplings=3):
    """A flow far from the identity."""
    torch.manual_seed(0)
    flow = Flow(size, couplings, 16)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return flow.requires_grad_(False)


def vae(prior, **options):
    torch.manual_seed(1)
    config = VaeConfig(**SMALL, prior=prior, **options)
    return {"flow": FlowVae, "vamp": VampVae}[prior](config, DATA)


# ---------------------------------------------------------------- the flow


def test_a_new_flow_is_the_standard_normal():
    z = torch.randn(5, 4)
    expected = Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(Flow(4, 6, 8).log_prob(z), expected)


def test_the_density_of_a_flow_equals_that_from_the_jacobian():
    """log p(z) = log N(u) + log |det du/dz|, with the whole Jacobian by automatic differentiation
    of an independent pass through the couplings."""
    flow = trained_flow().double()

    def to_noise(z):
        for coupling in flow.couplings:
            z = coupling(z[None])[0][0]
        return z

    for z in torch.randn(8, 4, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(to_noise, z)
        expected = Normal(0.0, 1.0).log_prob(to_noise(z)).sum() + jacobian.slogdet()[1]
        torch.testing.assert_close(flow.log_prob(z[None])[0], expected)


def test_samples_of_a_flow_are_mapped_back_to_their_noise():
    flow = trained_flow().double()
    noise = torch.randn(6, 4, dtype=torch.float64)
    z = noise
    for coupling in reversed(flow.couplings):
        z = coupling.inverse(z)
    for coupling in flow.couplings:
        z, _ = coupling(z)
    torch.testing.assert_close(z, noise)


def metropolis(log_prob, z, size, steps=60):
    """Random-walk Metropolis steps, which leave the density exp(log_prob) invariant."""
    value = log_prob(z)
    for _ in range(steps):
        proposed = z + size * torch.randn_like(z)
        new = log_prob(proposed)
        accepted = torch.rand(len(z)).log() < new - value
        z = torch.where(accepted[:, None], proposed, z)
        value = torch.where(accepted, new, value)
    return z


def two_sample_p_values(prior, size):
    """p-values of Kolmogorov-Smirnov tests between samples and other samples that Metropolis steps
    have moved: they have the same distribution if and only if the samples follow log_prob."""
    with torch.no_grad():
        fresh, moved = (
            prior.sample(SAMPLES),
            metropolis(prior.log_prob, prior.sample(SAMPLES), size),
        )
        columns = [*fresh.T, prior.log_prob(fresh)], [*moved.T, prior.log_prob(moved)]
    return [ks_2samp(a.numpy(), b.numpy()).pvalue for a, b in zip(*columns, strict=True)]


@pytest.mark.parametrize("kind", ["flow", "mixture"])
def test_samples_and_density_agree_by_a_two_sample_test(kind):
    prior = trained_flow() if kind == "flow" else three_gaussians()
    torch.manual_seed(2)
    assert min(two_sample_p_values(prior, 0.5)) > 1e-3


def test_the_two_sample_test_finds_wrong_samples():
    class Wider(Flow):
        def sample(self, n):
            return 1.1 * super().sample(n)

    torch.manual_seed(2)
    assert min(two_sample_p_values(Wider(4, 2, 8), 0.5)) < 1e-6


# ---------------------------------------------------------------- the VampPrior


def three_gaussians():
    mean = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-1.0, 2.0]])
    return Mixture(DiagonalGaussian(mean, torch.tensor([[0.0, -1.0], [-2.0, 0.5], [-4.0, -0.3]])))


def test_the_vamp_density_equals_the_mixture_of_torch_distributions():
    model = vae("vamp", components=5).requires_grad_(False)
    q = model.encode(model.pseudo_inputs.sigmoid())
    z = 2 * torch.randn(7, 4)
    each = [
        Independent(Normal(mean, (0.5 * log_var).exp()), 1).log_prob(z)
        for mean, log_var in zip(q.mean, q.log_var, strict=True)
    ]
    expected = torch.stack(each).exp().mean(0).log()
    torch.testing.assert_close(model.prior().log_prob(z), expected)


def test_the_vamp_density_is_exact_for_narrow_components():
    """In float32, the expanded square would have an error of about 1 nat here."""
    mean, log_var = 5 + torch.randn(3, 2), torch.full((3, 2), -14.0)
    z = mean[:1] + 1e-4
    component = Normal(mean[:1].double(), math.exp(-7.0))
    exact = component.log_prob(z.double()).sum(1) - math.log(3)
    found = Mixture(DiagonalGaussian(mean, log_var)).log_prob(z)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)


def test_the_elbo_trains_the_prior():
    for prior, name in (("flow", "flow.couplings.0.net.0.weight"), ("vamp", "pseudo_inputs")):
        model = vae(prior)
        if prior == "flow":  # the last layer of a new coupling is zero
            torch.nn.init.normal_(model.flow.couplings[0].net[-1].weight)
        loss = Forge().registry.get("losses", "elbo").spec.build(elbo_options(), DATA)
        batch = Batch(torch.rand(3, *SHAPE), None, torch.arange(3))
        loss(model, batch, Step(1, 10, 3, 1)).total().backward()
        assert bool(model.get_parameter(name).grad.any())


def elbo_options():
    return check_options(Forge().registry.get("losses", "elbo").spec.config, {}, "elbo")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"couplings": 4}, "couplings needs prior = 'flow'"),
        ({"prior": "vamp", "coupling_width": 8}, "coupling_width needs prior = 'flow'"),
        ({"prior": "flow", "components": 8}, "components needs prior = 'vamp'"),
        ({"prior": "flow", "latent_dim": 1}, "needs a latent_dim of at least 2"),
        ({"prior": "mixture"}, "model.prior"),
    ],
)
def test_options_without_effect_are_refused(options, said):
    with pytest.raises(ConfigError) as refused:
        Forge().train("vae", data={"train": torch.rand(8, *SHAPE)}, model=options)
    assert said in " ".join(refused.value.details)


def test_capabilities_depend_on_the_prior():
    spec = Forge().registry.get("models", "vae").spec
    assert "kl" in spec.capabilities()
    for prior in ("flow", "vamp"):
        provided = spec.capabilities(VaeConfig(prior=prior))
        assert "kl" not in provided
        assert {"prior", "log_prob", "variational"} <= provided


# ---------------------------------------------------------------- losses and measures


class OwnPpca(torch.nn.Module):
    """x ~ N(W z + b, sigma^2 I) with z ~ N(m, S); the encoder is wrong on purpose."""

    def __init__(self):
        super().__init__()
        self.latent = LatentSpec((2,), "own")
        self.w = torch.tensor([[0.3, 0.0], [0.0, -0.2], [0.1, 0.2], [-0.3, 0.1], [0.1, 0.4]])
        self.m, self.s = torch.tensor([1.0, -0.5]), torch.tensor([[0.8, 0.3], [0.3, 0.5]])

    def encode(self, x):
        mean = 3 * (x - 0.5) @ self.w + self.m
        return DiagonalGaussian(mean, torch.full_like(mean, -0.5))

    def decode(self, z):
        return z @ self.w.T + 0.5

    def prior(self):
        return MultivariateNormal(self.m, self.s)

    def exact_nll(self, x, sigma):
        covariance = self.w @ self.s @ self.w.T + sigma**2 * torch.eye(5)
        return -MultivariateNormal(self.decode(self.m), covariance).log_prob(x).mean()

    def exact_kl(self, x):
        q = self.encode(x)
        posterior = MultivariateNormal(q.mean, q.log_var.exp().diag_embed())
        return torch.distributions.kl_divergence(posterior, self.prior()).mean()


def test_nll_and_kl_of_an_own_prior_match_the_exact_values(evaluate):
    from latentforge.latent import Gaussian

    loss, model = torch.nn.Module(), OwnPpca()
    loss.likelihood = Gaussian(0.3)
    x = torch.rand(1100, 5, generator=torch.Generator().manual_seed(3))
    metrics, protocol = evaluate("nll kl elbo recon", model, x, loss=loss)
    exact = float(model.exact_nll(x, 0.3))
    assert metrics["nll"] == pytest.approx(exact, abs=3 * metrics["nll_se"])
    assert metrics["kl"] == pytest.approx(float(model.exact_kl(x)), abs=4 * metrics["kl_se"])
    assert 0 < metrics["kl_se"] < 0.1
    assert metrics["elbo"] == pytest.approx(-metrics["recon"] - metrics["kl"])
    assert metrics["elbo"] < -metrics["nll"]
    assert "log q(z|x) - log p(z)" in protocol["kl"]


class GaussianPrior(MultivariateNormal):
    """A diagonal Gaussian, with its KL from another one in closed form."""

    def kl(self, posterior):
        other = DiagonalGaussian(self.mean, self.variance.log())
        return posterior.kl_to(other)


class DiagonalPpca(OwnPpca):
    def __init__(self):
        super().__init__()
        self.s = self.s.diagonal().diag()
        self.latent = LatentSpec((2,), "own", {"one": (1,), "other": (1,)})

    def prior(self):
        return GaussianPrior(self.m, self.s)


def test_the_kl_to_an_own_prior_is_exact_if_the_prior_knows_it(evaluate):
    from latentforge.latent import Gaussian

    model, x = DiagonalPpca(), torch.rand(1100, 5, generator=torch.Generator().manual_seed(3))
    metrics, protocol = evaluate("kl elbo recon", model, x, likelihood=Gaussian(0.3))
    assert metrics["kl"] == pytest.approx(float(model.exact_kl(x)), rel=1e-5)
    assert metrics["kl_one"] + metrics["kl_other"] == pytest.approx(metrics["kl"], rel=1e-6)
    assert not {"kl_se", "kl_one_se", "kl_other_se"} & {*metrics}
    assert "in closed form; kl_NAME" in protocol["kl"]
    assert "log q(z|x)" not in protocol["kl"]
    assert metrics["elbo"] == pytest.approx(-metrics["recon"] - metrics["kl"])
    assert metrics["elbo_se"] == pytest.approx(metrics["recon_se"])  # only recon is sampled


def test_the_loss_uses_the_kl_to_an_own_prior_in_closed_form():
    loss = Forge().registry.get("losses", "elbo").spec.build(elbo_options(), DATA)
    model, x = DiagonalPpca(), torch.rand(9, 5)
    batch, posterior = Batch(x, None, torch.arange(9)), model.encode(x)
    model.decode_logits = model.decode
    terms = loss(model, batch, Step(1, 10, 9, 1))
    exact = model.prior().kl(posterior).mean(0)
    torch.testing.assert_close(terms.per_dim["kl"], exact)
    torch.testing.assert_close(terms.values["kl"], exact.sum())


def test_the_standard_errors_match_the_deviation_over_seeds(evaluate):
    from latentforge.latent import Gaussian

    loss, model = torch.nn.Module(), OwnPpca()
    loss.likelihood = Gaussian(0.3)
    x = torch.rand(50, 5, generator=torch.Generator().manual_seed(3))
    drawn = [evaluate("kl elbo", model, x, loss=loss, seed=seed)[0] for seed in range(80)]
    for name in ("kl", "elbo"):
        deviation = np.std([d[name] for d in drawn])
        stated = np.mean([d[f"{name}_se"] for d in drawn])
        assert deviation / stated == pytest.approx(1, abs=0.3)
