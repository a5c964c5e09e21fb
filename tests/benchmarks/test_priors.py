"""The benchmark of priors: its plain models against those of the plugins, its statistics, and short
runs of the script on digits."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from latentforge_plugins.vae import VaeConfig, build
from scipy.stats import ttest_1samp, ttest_rel
from torch import nn

from latentforge import DataSpec
from latentforge.latent import Bernoulli, log_ratio, prior_of

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("priors", "priors_page", "priors_results", "plain_priors", "turns")
VARIANTS = ("vae", "iwae", "flow", "vamp")
DATA = DataSpec(shape=(1, 8, 8), classes=())


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def plain(modules) -> ModuleType:
    return modules["plain_priors"]


@pytest.fixture(scope="module")
def results(modules) -> ModuleType:
    return modules["priors_results"]


def binary_images(count: int) -> torch.Tensor:
    return torch.rand(count, 64, generator=torch.Generator().manual_seed(0)).round()


def linear_layers(*modules: nn.Module) -> list[nn.Module]:
    return [m for module in modules for m in module.modules() if isinstance(m, nn.Linear)]


def same_weights(plain: ModuleType, variant: str) -> tuple[Any, Any]:
    """The plain model and that of the plugin, with the same random weights."""
    torch.manual_seed(1)
    reference = plain.PlainVae(variant, 64)
    prior = variant if variant in ("flow", "vamp") else "normal"
    model: Any = build(VaeConfig(prior=prior), DATA)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # no coupling is the identity
        sources = [reference.encoder, reference.to_mean, reference.to_log_var, reference.decoder]
        targets = [model.encoder, model.head.mean, model.head.log_var, model.decoder]
        if variant == "flow":
            sources.append(reference.prior.networks)
            targets.append(model.flow)
        pairs = zip(linear_layers(*sources), linear_layers(*targets), strict=True)
        for source, target in pairs:
            target.load_state_dict(source.state_dict())
        if variant == "vamp":
            model.pseudo_inputs.copy_(reference.prior.raw.view_as(model.pseudo_inputs))
    count = [sum(p.numel() for p in m.parameters()) for m in (reference, model)]
    assert count[0] == count[1]
    return reference.eval(), model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_model_is_that_of_the_plugin(plain, variant):
    """The parts of a weight, which are deterministic for given codes."""
    reference, model = same_weights(plain, variant)
    x, z = binary_images(20), 2 * torch.randn(20, 16)
    with torch.no_grad():
        posterior = model.encode(x.view(20, 1, 8, 8))
        for ours, theirs in zip(
            (posterior.mean, posterior.log_var), reference.encode(x), strict=True
        ):
            assert torch.allclose(ours, theirs, atol=1e-5)
        nll = Bernoulli().nll(model, z, x.view(20, 1, 8, 8))
        assert torch.allclose(-reference.log_likelihood(z, x), nll, rtol=1e-5)
        prior = prior_of(model).log_prob(z)
        assert torch.allclose(reference.prior.log_prob(z), prior, rtol=1e-4)
        assert prior.std() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_have_the_mean_of_the_bound(plain, variant):
    """E log p(x, z) / q(z | x) is -recon - KL, which the plugin's model gives too."""
    reference, model = same_weights(plain, variant)
    x = binary_images(3)
    with torch.no_grad():
        found = reference.log_weights(x, 4000)
        posterior = model.encode(x.repeat(4000, 1).view(-1, 1, 8, 8))
        z = posterior.sample()
        images = x.repeat(4000, 1).view(-1, 1, 8, 8)
        expected = -Bernoulli().nll(model, z, images) - log_ratio(model, posterior, z)
    expected = expected.view(4000, 3)
    error = (found.var(0) + expected.var(0)).div(4000).sqrt()
    assert ((found.mean(0) - expected.mean(0)).abs() < 5 * error).all()


def test_normal_flow_and_vamp_are_normalized(plain):
    """Their densities on a grid of the plane have the sum 1."""
    torch.manual_seed(0)
    axis = torch.arange(-8, 8, 0.04)
    points = torch.cartesian_prod(axis, axis)
    flow = plain.RealNvp(2, couplings=4, width=8)
    encoder = nn.Linear(6, 4)
    vamp = plain.Vamp(6, lambda x: encoder(x).chunk(2, 1))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for prior in (plain.Normal(), flow, vamp):
            total = prior.log_prob(points).double().exp().sum() * 0.04**2
            assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_vamp_is_the_mixture_of_torch(plain):
    reference, _ = same_weights(plain, "vamp")
    z = torch.randn(10, 16).double()
    with torch.no_grad():
        mean, log_var = reference.encode(torch.sigmoid(reference.prior.raw))
        normal = torch.distributions.Normal(mean.double(), (0.5 * log_var.double()).exp())
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=torch.zeros(500).double()),
            torch.distributions.Independent(normal, 1),
        )
        found = reference.prior.log_prob(z.float())
    assert torch.allclose(found.double(), mixture.log_prob(z.float().double()), rtol=1e-5)


def test_nll_without_information_in_z_has_a_closed_form(plain):
    """If the decoder ignores z, log p(x) = log p(x | z) whatever q(z | x) is."""
    torch.manual_seed(0)
    model, x = plain.PlainVae("vae", 64), binary_images(10)
    nn.init.zeros_(model.decoder[0].weight)
    with torch.no_grad():
        exact = -model.log_likelihood(torch.zeros(10, 16), x).double()
    nll = plain.image_nll(model, x, 2000)
    assert torch.allclose(nll, exact, atol=0.2)
    assert not torch.equal(nll, exact)  # the weights vary, so q is not the prior
    for layer in (model.to_mean, model.to_log_var):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.allclose(plain.image_nll(model, x, 7), exact, rtol=1e-5)


def test_nll_does_not_depend_on_the_size_of_the_calls(plain, monkeypatch):
    model, x = plain.PlainVae("vae", 64), binary_images(5)
    whole = plain.image_nll(model, x, 3000)
    monkeypatch.setattr(plain, "ROWS", 70)
    counted = []
    original = model.log_weights
    monkeypatch.setattr(
        model, "log_weights", lambda x, count: counted.append(len(x) * count) or original(x, count)
    )
    assert torch.allclose(plain.image_nll(model, x, 3000), whole, atol=0.2)
    assert sum(counted) == 5 * 3000
    assert max(counted) == 70


@pytest.mark.parametrize(("variant", "samples"), [("iwae", 9), ("flow", 1), ("vamp", 1)])
def test_loss_is_the_mean_of_the_bound(plain, variant, samples):
    """Which is that of the nll with as many samples, for the same codes."""
    model, x = plain.PlainVae(variant, 64), binary_images(40)
    torch.manual_seed(3)
    found = float(model.loss(x, 9).detach())
    torch.manual_seed(3)
    assert found == pytest.approx(float(plain.image_nll(model, x, samples).mean()), rel=1e-5)


@torch.no_grad()
def test_loss_of_vae_has_the_mean_of_the_bound(plain):
    model, x = plain.PlainVae("vae", 64), binary_images(40)
    losses = torch.stack([model.loss(x, 9) for _ in range(400)])
    bounds = -model.log_weights(x, 400).mean(1)
    error = float((losses.var() + bounds.var()).div(400).sqrt())
    assert float(losses.mean()) == pytest.approx(float(bounds.mean()), abs=5 * error)
    assert losses.std() < bounds.std()  # the KL is exact


def test_training_of_the_plain_models_is_determined_by_the_seed(plain):
    x = binary_images(1).repeat(50, 1)
    options = {"epochs": 3, "batch_size": 20, "lr": 1e-2, "clip": 1e2}
    options |= {"iwae_samples": 3, "nll_samples": 10}
    for variant in VARIANTS:
        first, second, other = (plain.run(variant, s, x, x[:6], **options) for s in (0, 0, 1))
        assert torch.equal(first.nll, second.nll)
        assert not torch.equal(first.nll, other.nll)
        assert first.nll.shape == (6,)
        assert first.losses[2] < first.losses[0]


# ---------------------------------------------------------------- nll of each image of a run


def test_values_of_the_images_are_those_of_nll(modules, plain, tmp_path):
    """In order, with the mean of the measure `nll`, and close to those of the plain model."""
    protocol = modules["priors"].Protocol(data="digits", epochs=1, nll_samples=300, images=0)
    bench = modules["priors"].Bench(protocol, "cpu", 1, tmp_path)
    found = bench.ours("vae", 0)["nll"]
    run = bench.forge.open_run(next(tmp_path.glob("*/vae")))
    expected = run.evaluate(measures=["nll"], options=["nll.samples=300"], device="cpu")
    assert np.mean(found) == pytest.approx(expected["nll"], abs=1e-4)

    test = bench.forge.load_data("digits", {"binarize": "fixed"}).split("test")
    x = next(test.batches(len(test))).x.flatten(1)
    assert len(found) == len(x)
    model: Any = run.load_model()
    reference = plain.PlainVae("vae", x.shape[1])
    sources = linear_layers(model.encoder, model.head.mean, model.head.log_var, model.decoder)
    parts = (reference.encoder, reference.to_mean, reference.to_log_var, reference.decoder)
    for source, target in zip(sources, linear_layers(*parts), strict=True):
        target.load_state_dict(source.state_dict())
    theirs = plain.image_nll(reference, x, 300).numpy()
    assert np.corrcoef(found, theirs)[0, 1] > 0.99
    assert np.mean(found) == pytest.approx(theirs.mean(), abs=0.5)

    few = modules["priors"].Protocol(data="digits", epochs=1, nll_samples=300, images=7)
    first = modules["priors"].Bench(few, "cpu", 1, tmp_path).ours("vae", 0)["nll"]
    assert len(first) == 7
    assert np.corrcoef(first, theirs[:7])[0, 1] > 0.99


# ---------------------------------------------------------------- statistics and stored results


def test_standard_errors_are_those_of_paired_t_tests(results):
    draw = np.random.default_rng(0)
    base = draw.normal(100, 20, (3, 50))
    other = base - draw.normal(1.0, 3.0, (3, 50))
    found = results.paired_difference(base.tolist(), other.tolist())
    assert found.mean == pytest.approx((base - other).mean())
    over_images = ttest_rel(base.mean(0), other.mean(0))
    over_seeds = ttest_1samp((base - other).mean(1), 0.0)
    assert found.mean / found.image_error == pytest.approx(over_images.statistic)
    assert found.mean / found.seed_error == pytest.approx(over_seeds.statistic)
    assert found.error == max(found.image_error, found.seed_error)
    single = results.paired_difference(base[:1].tolist(), other[:1].tolist())
    assert single.seed_error is None
    assert single.error == single.image_error


def test_better_needs_three_of_each_standard_error(results):
    assert results.Difference(3.1, 1.0, 1.0).better
    assert results.Difference(3.1, 1.0, None).better
    assert not results.Difference(2.9, 1.0, 0.1).better
    assert not results.Difference(2.9, 0.1, 1.0).better
    assert not results.Difference(-9.0, 1.0, 1.0).better


def test_stored_result_is_reused_only_for_its_settings(results, tmp_path):
    store, key = results.Store(tmp_path / "new"), {"case": "vae", "side": "ours", "seed": 0}
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"nll": [1.5]}

    def fail() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get(key, fail)
    first = store.get(key, compute)
    assert store.get(key, fail) == first
    assert first["nll"] == [1.5]
    assert first["key"] == key
    store.get({**key, "seed": 1}, compute)
    store.get({**key, "epochs": 2}, compute)
    assert len(calls) == 3
    assert len([*(tmp_path / "new").iterdir()]) == 3


def test_result_depends_only_on_the_settings_of_its_case(modules):
    protocol = modules["priors"].Protocol
    few, base = protocol(images=10), protocol()
    for case in ("cvae", "vq-vae"):
        assert few.of(case) == base.of(case) == protocol(iwae_samples=2).of(case)
    for case in VARIANTS:
        assert few.of(case) != base.of(case)
        assert (protocol(iwae_samples=2).of(case) == base.of(case)) == (case != "iwae")
        assert protocol(epochs=1).of(case) != base.of(case)


def nll_results(case: str, side: str, *means: float) -> dict[tuple[str, str], list[Any]]:
    spread = np.linspace(-1, 1, 20)
    key = {"case": case, "side": side}
    return {
        (case, side): [
            {"nll": [*(mean + spread)], "key": {**key, "seed": seed}}
            for seed, mean in enumerate(means)
        ]
    }


def test_missed_targets_are_listed(modules):
    missed = modules["priors_page"].missed
    good = nll_results("vae", "ours", 100, 101) | nll_results("iwae", "ours", 98.0, 99.1)
    plain = nll_results("vae", "plain", 100, 102) | nll_results("iwae", "plain", 98, 99)
    assert missed(good | plain) == []
    assert missed(good | nll_results("iwae", "ours", 98.0, 103)) == [
        "iwae, LatentForge: not better than vae by more than three standard errors"
    ]
    assert missed(good | nll_results("vae", "plain", 103, 102)) == [
        "vae: outside the range of plain PyTorch"
    ]
    more = good | nll_results("iwae", "ours", 98.0, 99.0, 98.5)
    more |= nll_results("vae", "ours", 100, 101, 100.4)
    assert missed(good | nll_results("iwae", "ours", 98.0, 103), more) == []
    assert missed(good, more | nll_results("iwae", "ours", 98.0, 99.0, 108.0)) == [
        "iwae, LatentForge: not better than vae by more than three standard errors"
    ]
    key = {"case": "cvae", "seed": 2}
    assert missed({("cvae", "ours"): [{"key": key, "agreement": 0.95}]}) == []
    assert missed({("cvae", "ours"): [{"key": key, "agreement": 0.949}]}) == [
        "cvae, seed 2: agreement 0.949"
    ]
    codes = {"perplexity": 128.0, "mse_vq_vae": 0.01, "mse_ae": 0.01, "mse_ae_gaussian": 0.011}
    codes["key"] = {"case": "vq-vae", "seed": 0}
    assert missed({("vq-vae", "ours"): [codes]}) == []
    worse = {**codes, "perplexity": 127.9, "mse_vq_vae": 0.0105}
    assert missed({("vq-vae", "ours"): [worse]}) == [
        "vq-vae, seed 0: perplexity 127.9",
        "vq-vae, seed 0: mse_vq_vae 0.0105",
    ]


# ---------------------------------------------------------------- the script

SHORT = "--data digits --epochs 1 --images 20 --nll-samples 20 --iwae-samples 2 --threads 1"


def run_script(folder: Path, *arguments: object) -> SimpleNamespace:
    command = [sys.executable, str(FOLDER / "priors.py"), *SHORT.split(), "--device", "cpu"]
    command += ["--results", str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    trained = [line for line in done.stdout.splitlines() if line.endswith(": training")]
    return SimpleNamespace(out=done.stdout, trained=trained)


@pytest.mark.slow
def test_script_continues_after_an_interruption(tmp_path):
    page, folder = tmp_path / "page.md", tmp_path / "results"
    only = ("--only", "vae", "--only", "vamp", "--seeds", 2, "--long", 2, "--write", page)
    only += ("--more", 3)
    first = run_script(folder, *only)
    assert len(first.trained) == 2 * 2 * 3 + 2
    text = page.read_text("utf-8")
    assert "| `vae --set model.prior=vamp` | plain PyTorch |" in text
    assert "## After 2 epochs" in text
    assert "cvae" not in text
    for heading in ("## Negative log-likelihood", "seeds 0, 1.", "seeds 0 to 2", "20 test images"):
        assert heading in text

    [lost] = folder.glob("vamp-plain-seed-1-*.json")
    lost.unlink()
    second = run_script(folder, *only)
    assert second.trained == ["vamp, plain, seed 1: training"]
    assert rows(page.read_text("utf-8")) == rows(text)


@pytest.mark.slow
def test_script_measures_conditional_samples_and_codebooks(tmp_path):
    page = tmp_path / "page.md"
    done = run_script(tmp_path, "--only", "cvae", "--only", "vq-vae", "--seeds", 1, "--write", page)
    assert done.trained == ["cvae, ours, seed 0: training", "vq-vae, ours, seed 0: training"]
    text = page.read_text("utf-8")
    assert "Negative log-likelihood" not in text
    [agreement] = [row for row in rows(text) if row.startswith("| 0 |")][:1]
    assert 0 <= float(agreement.split("|")[2]) <= 1
    perplexity = float([row for row in rows(text) if row.startswith("| 0 |")][1].split("|")[2])
    assert 1 <= perplexity <= 256


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]
