"""The built-in losses against torch.distributions, closed forms and other conventions of beta."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from latentforge_plugins.elbo.config import BetaElboConfig
from latentforge_plugins.elbo.loss import capacity, share
from torch.distributions import Bernoulli, Normal, kl_divergence

from latentforge import DataSpec, Forge
from latentforge.contracts import Batch, Step
from latentforge.errors import ConfigError, UsageError
from latentforge.latent import Point

REGISTRY = Forge().registry
DATA = DataSpec((1, 4, 6), classes=("a", "b", "c"))
LATER = Step(index=3, total=100, images=50, epoch_length=10)
FIRST = Step(index=0, total=100, images=50, epoch_length=10)
VARIATIONAL = ["elbo", "beta-elbo", "beta-tc"]


def build(kind, name, **options):
    spec = REGISTRY.get(kind, name).spec
    torch.manual_seed(0)
    return spec.build(spec.config(**options), DATA)


def vae(**options):
    return build("models", "vae", encoder=(16,), decoder=(16,), latent_dim=3, **options)


def batch_of(x):
    return Batch(x, torch.arange(len(x)) % 3, torch.arange(len(x)))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return batch_of(torch.rand(8, *DATA.shape))


def terms_of(name, model, batch, step=LATER, **options):
    loss = build("losses", name, **options)
    torch.manual_seed(7)
    return loss(model, batch, step)


def normal_of(posterior):
    return Normal(posterior.mean, (posterior.log_var / 2).exp())


# ---------------------------------------------------------------- counts


COUNTS = DataSpec((30,), "vector", range=(0.0, math.inf), limits=(0.0, 20.0))


def counts_of(mean, dispersion, images=4000):
    """Counts with these means, as a gamma-Poisson mixture."""
    r = torch.as_tensor(dispersion).expand(COUNTS.shape)
    rate = torch.distributions.Gamma(r, r / mean).sample((images,))
    return torch.poisson(rate)


class Means(torch.nn.Module):
    """A decoder that ignores the code and knows the means."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def encode(self, x):
        return Point(torch.zeros(len(x), 1))

    def decode(self, z):
        return self.mean.expand(len(z), *COUNTS.shape)


@pytest.mark.parametrize("of", ["all", "value"])
@pytest.mark.parametrize("true", [0.5, 3.0, 20.0])
def test_the_dispersion_of_synthetic_counts_is_recovered(true, of):
    mean = torch.linspace(1, 30, 30)
    dispersion = torch.full((30,), true) * (torch.linspace(0.5, 2, 30) if of == "value" else 1)
    torch.manual_seed(0)
    x = counts_of(mean, dispersion, images=20_000 if of == "value" else 4000)
    spec = REGISTRY.get("losses", "reconstruction").spec
    loss = spec.build(spec.config(likelihood="negative-binomial", dispersion_of=of), COUNTS)
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = loss(Means(mean), batch_of(x), LATER).total()
        total.backward()
        return total

    optimizer.step(closure)
    terms = loss(Means(mean), batch_of(x), LATER)
    found = terms.per_dim["dispersion"] if of == "value" else terms.values["dispersion"]
    expected = dispersion if of == "value" else torch.tensor(true)
    error = (found.detach() / expected - 1).abs()
    assert error.mean() < 0.1
    assert terms.weights["dispersion"] == 0


@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL])
@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial", "laplace"])
def test_every_loss_has_the_likelihoods_of_other_data(name, likelihood):
    spec, model_spec = (REGISTRY.get(*p).spec for p in (("losses", name), ("models", "vae")))
    loss = spec.build(spec.config(likelihood=likelihood), COUNTS)
    model = model_spec.build(model_spec.config(latent_dim=3), COUNTS)
    x = counts_of(torch.full((30,), 4.0), 3.0, images=8)
    terms = loss(model, batch_of(x), FIRST)
    terms.check()
    expected = loss.likelihood.nll(model, model.encode(x).mode(), x).mean().item()
    assert terms.values["recon"].item() == pytest.approx(expected, rel=0.2)
    assert all(value.isfinite() for value in terms.values.values())
    with (
        pytest.raises(UsageError, match="whole numbers")
        if likelihood != "laplace"
        else (nullcontext())
    ):
        loss(model, batch_of(x + 0.5), FIRST)


def test_options_of_other_likelihoods_are_refused():
    config = REGISTRY.get("losses", "elbo").spec.config
    for options in (
        {"likelihood": "poisson", "sigma": 2.0},
        {"likelihood": "negative-binomial", "learn_sigma": True},
        {"likelihood": "gaussian", "dispersion": 2.0},
        {"likelihood": "poisson", "learn_dispersion": False},
        {"dispersion_of": "value"},
    ):
        with pytest.raises(ValueError, match="need likelihood"):
            config(**options)


# ---------------------------------------------------------------- the terms


def expected_recon(model, z, x, options):
    if options.get("likelihood") == "gaussian":
        log_p = Normal(model.decode(z), options.get("sigma", 1.0)).log_prob(x)
    else:
        log_p = Bernoulli(model.decode(z), validate_args=False).log_prob(x)
    return -log_p.sum() / len(x)


LIKELIHOODS = [
    {},
    {"likelihood": "gaussian", "sigma": 0.3},
    {"likelihood": "gaussian", "sigma": 0.3, "learn_sigma": True},
]


@pytest.mark.parametrize("options", LIKELIHOODS)
@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL])
def test_terms_match_torch_distributions(name, options, batch):
    model = vae()
    terms = terms_of(name, model, batch, **options)
    posterior = normal_of(model.encode(batch.x))
    torch.manual_seed(7)
    z = posterior.rsample()
    torch.testing.assert_close(
        terms.values["recon"], expected_recon(model, z, batch.x, options), rtol=1e-4, atol=1e-4
    )
    if name == "reconstruction":
        assert set(terms.values) - {"sigma"} == {"recon"}
        return
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(terms.values["kl"], kl.sum())
    torch.testing.assert_close(terms.per_dim["kl"], kl)
    assert not terms.per_dim["kl"].requires_grad
    terms.check()


@pytest.mark.parametrize(
    ("name", "options", "weighted"),
    [
        ("elbo", {}, {"recon": 1, "kl": 1}),
        ("beta-elbo", {}, {"recon": 1, "kl": 4}),
        ("beta-elbo", {"beta": 0.0}, {"recon": 1}),
        ("beta-elbo", {"capacity": 5.0, "beta": 30.0}, {"recon": 1, "kl_gap": 30}),
        ("beta-tc", {}, {"recon": 1, "mi": 1, "tc": 6, "dim_kl": 1}),
        ("beta-tc", {"alpha": 2.0, "beta": 3.0, "gamma": 0.5},
         {"recon": 1, "mi": 2, "tc": 3, "dim_kl": 0.5}),
    ],
)  # fmt: skip
def test_the_total_is_the_weighted_sum_of_terms(name, options, weighted, batch):
    terms = terms_of(name, vae(), batch, **options)
    assert "kl" in terms.values  # logged even if its weight is 0
    expected = sum(weight * terms.values[key] for key, weight in weighted.items())
    torch.testing.assert_close(terms.total(), expected)


@pytest.mark.parametrize("name", ["reconstruction", "elbo", "beta-elbo"])
@pytest.mark.parametrize("options", LIKELIHOODS)
def test_terms_do_not_depend_on_the_batch_size(name, options, batch):
    model = vae()
    torch.nn.init.constant_(model.head.log_var.bias, -60.0)  # z is the mean, for any noise
    once = terms_of(name, model, batch, **options).values
    thrice = terms_of(name, model, batch_of(batch.x.repeat(3, 1, 1, 1)), **options).values
    assert once.keys() == thrice.keys()
    for key, value in once.items():
        torch.testing.assert_close(thrice[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL, "cross-entropy"])
def test_a_step_does_not_synchronise_with_the_device(name, batch):
    """Runs on the meta device, whose tensors have no values, so any read of a value fails."""
    model = build("models", "mlp-classifier") if name == "cross-entropy" else vae()
    loss = build("losses", name).to("meta")
    x = batch.x.to("meta")
    terms = loss(model.to("meta"), Batch(x, batch.y.to("meta"), batch.index.to("meta")), LATER)
    terms.check()
    terms.total().backward()


def test_cross_entropy_is_the_mean_negative_log_likelihood(batch):
    model = build("models", "mlp-classifier")
    terms = terms_of("cross-entropy", model, batch)
    chosen = model(batch.x).softmax(1)[torch.arange(len(batch.x)), batch.y]
    torch.testing.assert_close(terms.values["cross_entropy"], -chosen.log().mean())


# ---------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL])
def test_the_first_step_refuses_data_outside_the_support(name, batch):
    model, outside = vae(), batch_of(3 * batch.x - 1)
    low, high = outside.x.aminmax()
    with pytest.raises(UsageError, match=f"from {low:g} to {high:g}"):
        terms_of(name, model, outside, FIRST)
    terms_of(name, model, outside, LATER)  # the check needs a sync, so it runs once
    terms_of(name, model, outside, FIRST, likelihood="gaussian")
    terms_of(name, model, batch, FIRST)
    batch.x[0, 0, 0, 0] = math.nan
    for likelihood in ("bernoulli", "gaussian"):
        with pytest.raises(UsageError, match=r"nan|finite"):
            terms_of(name, model, batch, FIRST, likelihood=likelihood)


@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL])
def test_a_learnt_sigma_is_a_loss_parameter_and_converges_to_the_rmse(name, batch):
    model = vae()
    torch.nn.init.constant_(model.head.log_var.bias, -60.0)
    with torch.no_grad():
        error = (model.decode(model.encode(batch.x).mode()) - batch.x).square().mean().sqrt()
    loss = build("losses", name, likelihood="gaussian", sigma=float(error), learn_sigma=True)
    assert [key for key, _ in loss.named_parameters()] == ["log_sigma"]
    terms = loss(model, batch, LATER)
    torch.testing.assert_close(terms.values["sigma"], error)
    terms.total().backward()
    assert abs(loss.log_sigma.grad) < 1e-3 * DATA.size  # (rmse/sigma)^2 = 1
    with torch.no_grad():
        loss.log_sigma += math.log(2)
    loss.log_sigma.grad = None
    loss(model, batch, LATER).total().backward()
    torch.testing.assert_close(loss.log_sigma.grad, torch.tensor(DATA.size * (1 - 0.25)))
    torch.testing.assert_close(loss.likelihood.sigma, 2 * error)  # used by metrics


@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL])
@pytest.mark.parametrize("options", [{"sigma": 0.5}, {"learn_sigma": True}])
def test_sigma_without_a_gaussian_likelihood_is_refused(name, options):
    with pytest.raises(ValueError, match="need likelihood = 'gaussian'"):
        REGISTRY.get("losses", name).spec.config(**options)


@pytest.mark.parametrize("name", ["reconstruction", *VARIATIONAL])
def test_the_likelihood_determines_the_needed_capabilities(name):
    spec = REGISTRY.get("losses", name).spec
    assert "decode_logits" in spec.needs(spec.config())
    gaussian = spec.needs(spec.config(likelihood="gaussian"))
    assert "decode" in gaussian
    assert "decode_logits" not in gaussian
    assert bool({"kl", "variational"} & {*gaussian}) == (name != "reconstruction")


# ---------------------------------------------------------------- beta schedules


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 1, 5: 1, 99: 1}),
        ({"schedule": "linear"}, {0: 0, 0.5: 0.05, 5: 0.5, 9.9: 0.99, 10: 1, 99: 1}),
        ({"schedule": "linear", "start_epoch": 2.0, "end_epoch": 4.0},
         {0: 0, 2: 0, 2.5: 0.25, 3: 0.5, 4: 1, 5: 1}),
        ({"schedule": "linear", "start_epoch": 3.0, "end_epoch": 3.0}, {2.9: 0, 3: 1, 4: 1}),
        ({"schedule": "linear", "end_epoch": 0.0}, {0: 1, 1: 1}),
        # four cycles of 2.5 epochs, half of each rising
        ({"schedule": "cyclic"}, {0: 0, 0.625: 0.5, 1.25: 1, 2.4: 1, 2.5: 0, 3.125: 0.5, 10: 1}),
        ({"schedule": "cyclic", "cycles": 2, "ramp": 1.0, "start_epoch": 4.0, "end_epoch": 8.0},
         {3: 0, 4: 0, 5: 0.5, 5.9: 0.95, 6: 0, 7: 0.5, 8: 1, 9: 1}),
        ({"schedule": "cyclic", "start_epoch": 3.0, "end_epoch": 3.0}, {2: 0, 3: 1}),
    ],
)  # fmt: skip
def test_beta_schedules_give_the_expected_share(options, expected):
    config = BetaElboConfig(**options)
    assert {epoch: share(config, epoch) for epoch in expected} == pytest.approx(expected)


def test_the_weight_of_a_step_is_the_scheduled_share_of_beta(batch):
    model, options = vae(), {"beta": 8.0, "schedule": "linear", "end_epoch": 2.0}
    weights = {
        index: terms_of("beta-elbo", model, batch, Step(index, 50, 100, 10), **options).weights
        for index in (0, 5, 20)
    }
    assert weights == {0: {"kl": 0.0}, 5: {"kl": 2.0}, 20: {"kl": 8.0}}


def test_capacity_grows_linearly_to_its_full_value():
    config = BetaElboConfig(capacity=25.0, capacity_epochs=5.0)
    grown = {epoch: capacity(config, epoch) for epoch in (0, 1, 2.5, 5, 7)}
    assert grown == {0: 0, 1: 5, 2.5: 12.5, 5: 25, 7: 25}
    assert capacity(BetaElboConfig(capacity=25.0, capacity_epochs=0.0), 0.0) == 25


@pytest.mark.parametrize(("c", "sign"), [(0.001, 1), (1000.0, -1)])
def test_capacity_pulls_the_kl_towards_c_from_either_side(c, sign, batch):
    model = vae()
    options = {"capacity": c, "capacity_epochs": 0.0, "beta": 3.0}
    terms = terms_of("beta-elbo", model, batch, **options)
    kl = terms.values["kl"]
    torch.testing.assert_close(terms.values["kl_gap"], (kl - c).abs())
    weight = model.head.mean.weight
    (of_kl,) = torch.autograd.grad(kl, weight, retain_graph=True)
    (of_gap,) = torch.autograd.grad(terms.values["kl_gap"], weight, retain_graph=True)
    torch.testing.assert_close(of_gap, sign * of_kl)
    assert terms.weights == {"kl": 0.0, "kl_gap": 3.0}


@pytest.mark.parametrize("schedule", ["linear", "cyclic"])
def test_a_schedule_that_ends_before_it_starts_is_refused(schedule):
    loss = {"name": "beta-elbo", "schedule": schedule, "start_epoch": 5.0, "end_epoch": 4.5}
    with pytest.raises(ConfigError) as caught:
        Forge().train("vae", loss=loss, data="digits", quiet=True)
    assert caught.value.details == (
        "loss: the schedule of beta ends before it starts: end_epoch 4.5, start_epoch 5",
    )


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        ({"name": "beta-elbo", "beta": -1.0}, "loss.beta"),
        ({"name": "beta-elbo", "capacity": -0.1}, "loss.capacity"),
        ({"name": "beta-elbo", "ramp": 0.0}, "loss.ramp"),
        ({"name": "beta-elbo", "cycles": 0}, "loss.cycles"),
        ({"name": "beta-tc", "alpha": -1.0}, "loss.alpha"),
        ({"name": "elbo", "sigma": 0.0}, "loss.sigma"),
        ({"name": "elbo", "beta": 2.0}, "loss.beta"),
    ],
)
def test_invalid_options_are_refused_with_their_key(loss, key):
    with pytest.raises(ConfigError) as caught:
        Forge().train("vae", loss=loss, data="digits", quiet=True)
    assert caught.value.details[0].startswith(key)


# ---------------------------------------------------------------- beta in other conventions


def gradient(value, parameters):
    grads = torch.autograd.grad(value, parameters, retain_graph=True)
    return torch.cat([g.flatten() for g in grads])


def test_converted_beta_gives_the_same_gradient_direction(batch):
    """The loss of each convention, with the beta that `facts` reports for it, has a gradient
    parallel to ours."""
    model = vae().double()
    batch = batch_of(batch.x.double())
    options = {"likelihood": "gaussian", "sigma": 0.4, "beta": 3.0}
    loss = build("losses", "beta-elbo", **options)
    torch.manual_seed(7)
    terms = loss(model, batch, LATER)
    facts = loss.facts(model, DATA)
    torch.manual_seed(7)
    posterior = model.encode(batch.x)
    x_hat = model.decode(posterior.sample())
    recon, kl = terms.values["recon"], terms.values["kl"]
    n, m = 1 * 4 * 6, 3
    squared = (x_hat - batch.x).square().sum() / len(batch.x)
    conventions = {
        "beta (sums over pixels and latents)": (recon, kl),
        "beta (mean over pixels, sum over latents)": (recon / n, kl),
        "beta (means over pixels and latents)": (recon / n, kl / m),
        "beta (sum over pixels, mean over latents)": (recon, kl / m),
        "beta (mean squared error, sum over latents)": (squared / n, kl),
        "beta (sum of squared errors, sum over latents)": (squared, kl),
    }
    assert facts.keys() == conventions.keys()
    ours = gradient(terms.total(), list(model.parameters()))
    assert ours.norm() > 0
    for name, (first, second) in conventions.items():
        theirs = gradient(first + facts[name] * second, list(model.parameters()))
        cosine = float(torch.cosine_similarity(ours, theirs, dim=0))
        assert cosine == pytest.approx(1.0, abs=1e-9), name
        wrong = gradient(first + 1.1 * facts[name] * second, list(model.parameters()))
        assert float(torch.cosine_similarity(ours, wrong, dim=0)) < 1 - 1e-6, name


def test_facts_of_a_loss_name_the_reduction():
    mnist, model = DataSpec((1, 28, 28)), vae()  # 3 latent dimensions
    facts = build("losses", "beta-elbo").facts(model, mnist)
    assert facts == pytest.approx(
        {
            "beta (sums over pixels and latents)": 4.0,
            "beta (mean over pixels, sum over latents)": 4 / 784,
            "beta (means over pixels and latents)": 4 * 3 / 784,
            "beta (sum over pixels, mean over latents)": 12.0,
        }
    )
    assert build("losses", "elbo").facts(model, mnist) == pytest.approx(
        {name: value / 4 for name, value in facts.items()}
    )
    learnt = build("losses", "elbo", likelihood="gaussian", learn_sigma=True)
    assert len(learnt.facts(model, mnist)) == 4  # a learnt sigma has no fixed beta
    tc = build("losses", "beta-tc").facts(model, mnist)
    assert tc == {"beta (sum over pixels)": 6.0, "beta (mean over pixels)": 6 / 784}


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("loss", "logged", "weights"),
    [
        ({"name": "elbo"}, {"recon", "kl"}, {}),
        (  # one cycle per epoch: six steps with 0, 1/3, 2/3, 1, 1, 1 of beta; the last has 3 images
            {"name": "beta-elbo", "schedule": "cyclic", "end_epoch": 2.0, "cycles": 2},
            {"recon", "kl"},
            {"kl": 4 * (64 * 3 + 3) / 323},
        ),
        ({"name": "beta-elbo", "capacity": 3.0}, {"recon", "kl", "kl_gap"}, {"kl": 0, "kl_gap": 4}),
        (
            {"name": "beta-tc"},
            {"recon", "kl", "mi", "tc", "dim_kl"},
            {"mi": 1, "tc": 6, "dim_kl": 1, "kl": 0},
        ),
        (
            {"name": "elbo", "likelihood": "gaussian", "learn_sigma": True},
            {"recon", "kl", "sigma"},
            {"sigma": 0},
        ),
    ],
)
def test_terms_weights_and_kl_per_dimension_are_logged(loss, logged, weights, tmp_path):
    run = Forge().train(
        "vae",
        data={"name": "digits", "test": 0.8},
        model={"encoder": [16], "decoder": [16], "latent_dim": 3},
        loss=loss,
        train={"epochs": 2, "batch_size": 64, "lr": 3e-3},
        run=tmp_path / "run",
        quiet=True,
    )
    train = run.metrics["train"]
    assert set(train) == {"loss", *logged, *(f"{name}_weight" for name in weights)}
    for name, weight in weights.items():
        assert train[f"{name}_weight"] == pytest.approx(weight), name
    last = run.history()[-1]
    assert sum(last["per_dim"]["kl"]) == pytest.approx(run.metrics["train"]["kl"], rel=1e-4)
    assert "beta" in next(iter(run.manifest["facts"]))
    if "sigma" in logged:
        assert run.metrics["train"]["sigma"] < 1.0  # below its initial value
    assert run.evaluate(device="cpu") == pytest.approx(run.metrics["test"], rel=1e-5)
