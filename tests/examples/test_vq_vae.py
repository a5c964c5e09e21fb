"""The contracts hold for a VQ-VAE: spatial codes, no prior, a straight-through loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentforge import CallbackSpec, Forge, LossSpec, MeasureSpec
from latentforge.errors import ConfigError, PluginError, UsageError

from ..plugin import plugin_of

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "latentforge-vq"
VQ_VAE = "latentforge-vq/vq-vae"  # the plain name is that of the built-in model
SMALL = {"train": {"epochs": 3, "lr": 3e-3, "batch_size": 32, "device": "cpu"}, "quiet": True}


class WatchCodebook:
    """Logs how many entries ever had a gradient, and the least distance that one of them moved."""

    def attach(self, engines):
        codebook = engines.model.codebook
        start = codebook.detach().clone()
        self.reached = start.new_zeros(len(start)).bool()

        @engines.trainer.on(Events.ITERATION_COMPLETED)
        def note():
            self.reached |= codebook.grad.abs().sum(1) > 0

        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def log():
            moved = (codebook.detach() - start).norm(dim=1)
            engines.log("codebook/reached", float(self.reached.sum()))
            engines.log("codebook/moved", float(moved[self.reached].min()))


def build_rate(config, context):
    raise AssertionError("no model here provides kl, so nothing may build this")


RATE = {"name": "rate", "summary": "KL", "build": build_rate}
BESIDE = (  # in addition to the components of the package
    CallbackSpec(name="watch-codebook", summary="Entries", build=lambda config: WatchCodebook()),
    LossSpec(**RATE, needs={"encode", "kl"}),
    MeasureSpec(**RATE, protocol="nats per image", needs={"kl"}),
)


@pytest.fixture(scope="module")
def forge():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)
        yield Forge(plugins=["latentforge_vq", plugin_of(*BESIDE)])


@pytest.fixture(scope="module")
def run(forge, tmp_path_factory):
    path = tmp_path_factory.mktemp("vq") / "run"
    return forge.train(VQ_VAE, data="digits", callbacks=["watch-codebook"], run=path, **SMALL)


@pytest.fixture(scope="module")
def reopened(run):
    """The run, opened by a Forge that has only the package."""
    return Forge(plugins=["latentforge_vq"]).open_run(run.path)


def test_it_learns_to_reconstruct(run):
    first, *_, last = run.history()
    assert last["validation"]["recon"] < 0.7 * first["validation"]["recon"]
    assert last["train"]["recon"] < 0.7 * first["train"]["recon"]
    assert run.metrics["test"]["recon"] == pytest.approx(last["validation"]["recon"], rel=0.15)


def test_terms_are_weighted_and_one_of_weight_0_is_only_logged(run):
    terms = run.metrics["train"]
    weights = {"commitment_weight": 0.25, "perplexity_weight": 0.0}
    assert set(terms) == {"loss", "recon", "codebook", "commitment", "perplexity", *weights}
    assert {name: terms[name] for name in weights} == weights
    expected = terms["recon"] + terms["codebook"] + 0.25 * terms["commitment"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert 1 < terms["perplexity"] <= 32


def test_built_in_measures_and_the_plugins_own_read_its_codes(run, reopened):
    metrics = reopened.evaluate(device="cpu")
    assert set(metrics) >= {"recon", "bce_per_pixel", "mse_per_pixel", "loss", "perplexity"}
    assert "rate" not in metrics  # a default measure that needs kl, which the model lacks
    assert metrics["recon"] == pytest.approx(784 * metrics["bce_per_pixel"], rel=1e-5)
    assert metrics == pytest.approx(run.metrics["test"], rel=1e-5)

    entries = reopened.load_model().encode(images(reopened, "test").x / 255).entry
    shares = np.bincount(entries.flatten()) / entries.numel()
    entropy = -sum(p * np.log(p) for p in shares if p)
    assert metrics["perplexity"] == pytest.approx(np.exp(entropy), rel=1e-4)


def test_gradients_reach_the_codebook_and_the_encoder(run):
    scalars = EventAccumulator(str(run.path)).Reload()
    reached = [event.value for event in scalars.Scalars("codebook/reached")]
    assert len(reached) == 3
    assert 4 <= reached[0] <= reached[-1] <= 32
    assert scalars.Scalars("codebook/moved")[-1].value > 0.01  # even the entry that moved least

    model = run.load_model().requires_grad_()
    z = model.encode(images(run, "test").x[:4] / 255).sample()
    z.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert model.codebook.grad is None  # straight through, past the codebook


def test_the_reloaded_model_gives_the_same_codes(run, reopened):
    x = images(run, "test").x[:16] / 255
    one, other = run.load_model(), reopened.load_model()
    assert one is not other
    z = one.encode(x).mode()
    assert tuple(z.shape[1:]) == one.latent.shape == (8, 7, 7)
    assert torch.equal(z, other.encode(x).mode())
    codes = z.movedim(1, -1).reshape(-1, 8)
    assert (codes[:, None] == one.codebook).all(-1).any(1).all()  # each is an entry


def test_built_in_interpolation_supports_spatial_codes(reopened):
    found = reopened.explore("interpolate", steps=5, images=(3, 4), device="cpu")
    files = {Path(file).name: Path(file) for file in found["files"]}
    codes = np.load(files["codes.npz"])
    model = reopened.load_model()
    ends = model.encode(images(reopened, "test").x[3:5] / 255).mode()
    for path in ("linear", "spherical"):
        z = codes[f"z_{path}"]
        assert z.shape == (5, 8, 7, 7)
        np.testing.assert_allclose(z[[0, -1]], ends, atol=1e-5)
        np.testing.assert_allclose(codes[f"x_{path}"], model.decode(torch.from_numpy(z)), atol=1e-5)
    np.testing.assert_allclose(codes["z_linear"][2], ends.mean(0), atol=1e-5)
    assert files["interpolation.png"].stat().st_size > 1000
    assert json.loads(files["findings.json"].read_text())["options"]["steps"] == 5


def test_components_that_need_a_kl_are_refused_before_building(forge, run, tmp_path):
    with pytest.raises(UsageError, match=r"measure 'rate' needs kl; model 'vq-vae' provides co"):
        run.evaluate(measures=["rate"])
    with pytest.raises(ConfigError) as error:
        forge.train(VQ_VAE, loss="rate", run=tmp_path / "run", **SMALL)
    assert "loss 'rate' needs kl; model 'vq-vae' provides codebook" in error.value.details[0]
    with pytest.raises(ConfigError) as error:
        forge.train("ae", loss="vq", run=tmp_path / "run", **SMALL)
    assert "loss 'vq' needs codebook; model 'ae' provides decode" in error.value.details[0]
    assert not (tmp_path / "run").exists()


def test_unsupported_data_gives_the_error_of_the_model(forge, tmp_path):
    with pytest.raises(UsageError, match=r"sides divisible by 4, not 1x9x9"):
        forge.train(VQ_VAE, data={"name": "digits", "size": 9}, run=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_run_without_its_plugin_names_the_missing_one(run):
    with pytest.raises(
        PluginError, match=r"trained with 'latentforge_vq/vq-vae' of plugin"
    ) as error:
        Forge().open_run(run.path).load_model()
    assert "latentforge_vq" in error.value.hint


def images(run, split):
    """The raw uint8 images of a split."""
    return Forge().load_data("digits").split(split)
