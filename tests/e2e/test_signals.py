"""Runs on signals: reading, training, evaluation, codes, and models of images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentforge import Arrays, DataSpec, Forge
from latentforge.errors import ConfigError, UsageError

FORGE = Forge()
TRAIN = {"epochs": 1, "batch_size": 50}
GAUSSIAN = {"likelihood": "gaussian"}


def make_signals(count, channels, length):
    """Sines of a random frequency and phase, (N, C, L)."""
    random = np.random.default_rng(0)
    time = np.linspace(0, 1, length)
    frequency, phase = random.uniform(1, 4, (2, count, channels, 1))
    return np.sin(2 * np.pi * (frequency * time + phase)).astype(np.float32)


SIGNALS = make_signals(120, 2, 50)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of signal-vae on signals of two channels."""
    return FORGE.train(
        "signal-vae",
        data=Arrays(SIGNALS, range="any", kind="signal"),
        loss=GAUSSIAN,
        train=TRAIN,
        run=tmp_path_factory.mktemp("signals") / "run",
        quiet=True,
    )


def test_the_run_stores_the_kind_and_opens_with_it(run):
    about = json.loads((run.path / "run.json").read_text())["data"]
    assert (about["kind"], about["shape"]) == ("signal", [2, 50])
    assert about["preprocessing"]["layout"] == "NCL"
    again = FORGE.evaluate(run, data=SIGNALS)  # read with the kind of the run
    assert "mse_per_pixel" in again["metrics"]
    assert "ssim" not in again["metrics"]


def test_signals_train_to_reconstruct(tmp_path):
    """A model that reconstructed the mean signal would have a squared error of 0.5."""
    run = FORGE.train(
        "signal-vae",
        data=Arrays(make_signals(600, 1, 40), range="any", kind="signal"),
        loss={**GAUSSIAN, "sigma": 0.3},
        train={"epochs": 30, "batch_size": 50},
        run=tmp_path / "run",
        quiet=True,
    )
    assert run.metrics["test"]["mse_per_pixel"] < 0.1


@pytest.mark.parametrize("layout", ["NLC", "NL", "LCN"])
@pytest.mark.parametrize("stream", ["never", "always"])
def test_decoded_signals_have_the_layout_of_the_data(work, layout, stream):
    sizes = {"N": 120, "C": 2, "L": 50}
    x = SIGNALS if "C" in layout else SIGNALS[:, 0]
    order = [a for a in "NCL" if a in layout]
    x = np.ascontiguousarray(x.transpose([order.index(a) for a in layout]))
    np.save("x.npy", x)
    data = {"name": "arrays", "path": "x.npy", "layout": layout, "range": "any", "stream": stream}
    if stream == "always" and layout == "LCN":
        with pytest.raises(UsageError, match="must be the first axis"):
            FORGE.train("ae", data=data, loss=GAUSSIAN, train=TRAIN, quiet=True)
        return
    run = FORGE.train("ae", data=data, loss=GAUSSIAN, train=TRAIN, quiet=True)
    assert run.manifest["data"]["shape"] == [2 if "C" in layout else 1, 50]
    FORGE.decode(run.path, np.zeros((7, 16), np.float32), "decoded")
    decoded = np.load("decoded/decoded.npz")["x"]
    assert decoded.shape == tuple({**sizes, "N": 7}[a] for a in layout)


@pytest.mark.parametrize("model", ["conv-vae", "deconv-vae", "vq-vae", "fsq", "cnn-classifier"])
def test_models_of_images_refuse_signals(model, work):
    data = {"train": Arrays((SIGNALS + 1) / 2, np.arange(120) % 3, kind="signal")}
    with pytest.raises((UsageError, ConfigError), match="supports images, not signals") as error:
        FORGE.train(model, data=data, quiet=True)
    assert "vectors and signals" in str(error.value.hint)


def test_ssim_refuses_signals(run):
    with pytest.raises(UsageError, match="ssim supports images, not signals with 2 channels of 50"):
        FORGE.evaluate(run, measures=["ssim"])


def test_only_random_masks_support_signals(work):
    data = Arrays((SIGNALS + 1) / 2, kind="signal")
    run = FORGE.train("vae", data=data, train=TRAIN, quiet=True)
    with pytest.raises(UsageError, match="mask=lower supports images, not signals"):
        FORGE.explore("guided", run, objective="inpaint", mask="lower", steps=2)
    found = FORGE.explore("guided", run, objective="inpaint", mask="random", share=0.5, steps=2)
    known = np.load(f"{found['out']}/found.npz")
    assert known["x"].shape[-2:] == (2, 50)


@pytest.mark.parametrize("model", ["ae", "vae", "beta-vae", "cvae", "mlp-classifier"])
def test_the_mlp_models_support_signals(model, work):
    data = Arrays((SIGNALS + 1) / 2, np.arange(120) % 3, kind="signal")
    run = FORGE.train(model, data=data, train=TRAIN, quiet=True)
    assert run.status == "done"


def test_splits_of_two_kinds_are_refused(work):
    data = {"train": Arrays(SIGNALS[:, 0], kind="signal"), "test": Arrays(SIGNALS[:, 0])}
    with pytest.raises(UsageError, match="declare signals, and others do not"):
        FORGE.train("ae", data=data, quiet=True)
    with pytest.raises(UsageError, match="kind is 'sound'"):
        FORGE.train("ae", data=Arrays(SIGNALS, kind="sound"), quiet=True)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_signal_vae_supports_every_length(length, channels):
    spec = FORGE.registry.get("models", "signal-vae").spec
    model = spec.build(spec.config(latent_dim=3), DataSpec((channels, length), "signal"))
    x = torch.rand(4, channels, length)
    posterior = model.encode(x)
    assert posterior.mode().shape == (4, 3)
    assert model.decode(posterior.mode()).shape == x.shape
    loss = (model.decode_logits(posterior.sample()) - x).square().sum() + posterior.kl().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_signal_vae_refuses_other_data_and_even_kernels():
    spec = FORGE.registry.get("models", "signal-vae").spec
    with pytest.raises(UsageError, match="supports signals, not images of size 64") as error:
        spec.build(spec.config(), DataSpec((1, 8, 8)))
    assert error.value.hint.startswith("the model vae")
    with pytest.raises(ConfigError, match="kernel must be odd"):
        FORGE.train("signal-vae", model={"kernel": 4}, data=Arrays(SIGNALS, kind="signal"))


def test_signals_are_drawn_by_explorers_reports_and_data_show(run, tmp_path):
    found = FORGE.explore("reconstruct", run, n=3)
    assert any(file.endswith("reconstructions.png") for file in found["files"])
    FORGE.report(run.path, out=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Signals of the split test and their reconstructions" in page
    data = Arrays(SIGNALS, np.arange(120) % 2, kind="signal", range="any")
    facts = FORGE.describe_data(data, out=tmp_path / "samples.png")
    with Image.open(facts["picture"]) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
