"""Runs on data in other ranges than [0, 1]: training, evaluation, figures and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentforge import Arrays, DataSpec, Forge, LossSpec, ModelSpec
from latentforge.errors import ConfigError, UsageError
from tests.plugin import plugin_of

FORGE = Forge()
TRAIN = {"epochs": 1, "batch_size": 50}
COUNTS = np.random.default_rng(0).poisson(3.0, (120, 1, 8, 8)).astype("int32")
GAUSSIAN = {"likelihood": "gaussian"}


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """A run on images of counts."""
    return FORGE.train(
        "vae",
        data={"train": Arrays(COUNTS, range="counts")},
        loss=GAUSSIAN,
        train=TRAIN,
        run=tmp_path_factory.mktemp("counts") / "run",
        quiet=True,
    )


def test_the_run_stores_the_range_and_opens_with_it(counts):
    steps = json.loads((counts.path / "run.json").read_text())["data"]["preprocessing"]
    assert steps["range"] == [0.0, None]
    assert steps["limits"] == [0.0, float(COUNTS.max())]
    run = FORGE.open_run(counts.path)
    x = run.load_model().decode(torch.randn(5, 16))
    assert x.min() >= 0
    assert x.max() > 1  # a sigmoid cannot
    again = FORGE.evaluate(run, data=Arrays(COUNTS))  # read with the range of the run
    assert again["metrics"]["mse_per_pixel"] > 1
    assert again["protocol"]["mse_per_pixel"].startswith("squared error of counts")


def test_a_training_recovers_the_dispersion_of_counts(tmp_path):
    """Counts without a structure, so that the mean of each value is all that a decoder can learn;
    other structure that it does not learn would count as dispersion."""
    random, true, mean = np.random.default_rng(0), 3.0, np.linspace(1, 30, 24)
    x = random.poisson(random.gamma(true, mean / true, (2000, 24)))
    run = FORGE.train(
        "vae",
        data=Arrays(x, range="counts"),
        model={"latent_dim": 2, "encoder": [32], "decoder": [32]},
        loss={"likelihood": "negative-binomial"},
        train={"epochs": 25, "lr": 0.02, "batch_size": 50},
        run=tmp_path / "run",
        quiet=True,
    )
    assert run.metrics["train"]["dispersion"] == pytest.approx(true, rel=0.1)
    decoded = run.load_model().decode(torch.zeros(1, 2))[0].numpy()
    np.testing.assert_allclose(decoded, mean, rtol=0.2)
    text = run.manifest["protocol"]["recon"]
    assert "negative binomial with dispersion" in text
    other = {"likelihood": "poisson"}
    with pytest.raises(UsageError, match="whole numbers from 0") as error:
        FORGE.train("vae", data="digits", loss=other)
    assert error.value.hint.startswith("data={'name': 'digits', 'range': 'counts'} or loss=")


def test_the_hint_for_values_that_are_no_counts_can_be_trained(cli, work):
    np.savez(work / "x.npz", x=COUNTS[:, 0] - 1)
    words = ("train", "vae", "--data", "arrays", "--set", "data.path=x.npz", "--epochs", "1")
    likelihood = ("--set", "data.range=counts", "--set", "loss.likelihood=poisson")
    refused = cli(*words, *likelihood)
    assert refused.code == 2
    assert "real numbers: --set data.range=any, with --set loss.likelihood=gaussian" in refused.err
    options = ("--set", "data.range=any", "--set", "loss.likelihood=gaussian")
    assert cli(*words, *options).code == 0


def test_other_data_with_another_range_is_refused(counts):
    with pytest.raises(UsageError, match="not whole numbers from 0"):
        FORGE.evaluate(counts, data=COUNTS / 10)
    with pytest.raises(UsageError, match="was trained on data of the range counts") as error:
        FORGE.evaluate(counts, data={"train": COUNTS, "range": "any"})
    assert "'range': 'counts'" in error.value.hint


@pytest.mark.parametrize(
    ("change", "announced"),
    [
        (lambda x: x, False),
        (lambda x: np.minimum(x, 6), False),
        (lambda x: 10 * x, True),
        (lambda x: x // 6, True),
        (lambda x: 500 + x, True),
    ],
)
def test_other_data_with_another_scale_is_announced(counts, caplog, change, announced):
    data = {"test": Arrays(change(COUNTS[:60]))}
    FORGE.evaluate(FORGE.open_run(counts.path), data=data, measures=["mse_per_pixel"])
    assert ("this data has values from" in caplog.text) == announced


def test_measures_of_the_unit_range_are_left_out(counts):
    assert "bce_per_pixel" not in counts.metrics["test"]
    with pytest.raises(UsageError, match=r"bce_per_pixel.* supports values from 0 to 1"):
        FORGE.evaluate(counts, measures=["bce_per_pixel"])
    found = FORGE.evaluate(counts, measures=["psnr", "ssim"])
    assert 0 < found["metrics"]["ssim"] < 1
    assert f"data range {COUNTS.max():g}" in found["protocol"]["psnr"]


def test_figures_scale_the_values(counts):
    found = FORGE.explore("reconstruct", counts, split="train", n=4)
    arrays = np.load(f"{found['out']}/errors.npz")
    assert arrays["x_some"].max() > 1  # the arrays keep the units
    pixels = np.asarray(Image.open(f"{found['out']}/reconstructions.png").convert("L"))
    assert len(np.unique(pixels)) > 20  # clipped counts would be black and white


def test_a_decoded_file_has_counts_and_its_pictures_are_scaled(counts, tmp_path):
    FORGE.encode(counts, tmp_path / "codes.npz")
    FORGE.decode(counts, tmp_path / "codes.npz", tmp_path / "decoded")
    x = np.load(tmp_path / "decoded" / "decoded.npz")["x"]
    picture = np.asarray(Image.open(tmp_path / "decoded" / "images" / "0000.png")) / 255
    assert x.max() > 1
    assert np.abs(picture - (x[0] / COUNTS.max()).clip(0, 1)).max() < 0.003


def test_an_edited_range_is_noticed(counts, tmp_path, caplog):
    manifest = json.loads((counts.path / "run.json").read_text())
    original = json.dumps(manifest)
    manifest["data"]["preprocessing"]["range"] = None
    (counts.path / "run.json").write_text(json.dumps(manifest))
    try:
        FORGE.open_run(counts.path).load_model()
        assert "data.range: null in run.json, [0.0, null] in training" in caplog.text
        manifest["data"]["preprocessing"]["range"] = [0, 9]
        (counts.path / "run.json").write_text(json.dumps(manifest))
        with pytest.raises(Exception, match="range"):
            FORGE.open_run(counts.path)
    finally:
        (counts.path / "run.json").write_text(original)


@pytest.mark.parametrize("values", ["signed", "any"])
@pytest.mark.parametrize("model", ["ae", "vae", "conv-vae", "deconv-vae"])
def test_every_autoencoder_decodes_into_the_range(model, values, tmp_path):
    x = torch.rand(60, 1, 28, 28) * 2 - 1
    run = FORGE.train(
        model,
        data={"train": 30 * x if values == "any" else x, "range": values},
        loss=GAUSSIAN,
        train=TRAIN,
        run=tmp_path / "run",
        quiet=True,
    )
    network = run.load_model()
    decoded = network.decode(100 * torch.randn(20, *network.latent.shape))
    assert decoded.min() < -0.5
    assert (decoded.abs().max() <= 1) == (values == "signed")


def test_a_component_that_does_not_support_the_range_is_refused_before_torch_loads(start):
    before = "import atexit; atexit.register(lambda: print('torch' in sys.modules))"
    process = start("train", "vae", "--set", "data.range=counts", before=before)
    out, err = process.communicate()
    assert process.returncode == 2
    assert out.strip() == "False"
    assert "loss 'elbo' supports values from 0 to 1 (unit), but data.range is counts" in err
    assert "--set loss.likelihood=poisson or --set loss.likelihood=negative-binomial" in err


def build_nothing(config, data):
    raise AssertionError("must not be built")


def test_a_decoder_that_does_not_state_its_ranges_supports_the_unit_range():
    common = {"summary": "s", "build": build_nothing}
    model = ModelSpec(name="old", provides={"encode", "decode"}, default_loss="of-counts", **common)
    loss = LossSpec(name="of-counts", needs={"encode"}, ranges={"counts"}, **common)
    forge = Forge(plugins=[plugin_of(model, loss)])
    with pytest.raises(ConfigError) as error:
        forge.train("old", data={"train": COUNTS, "range": "counts"})
    assert "model 'old' supports values from 0 to 1 (unit)" in str(error.value)
    assert "a model that supports it: " in str(error.value)
    with pytest.raises(UsageError, match="loss 'of-counts' supports whole numbers from 0") as error:
        forge.train("old", data=torch.rand(50, 9))
    assert "'range': 'counts'" in error.value.hint


def test_the_default_spec_is_that_of_version_1():
    assert DataSpec((1, 8, 8)).range == (0.0, 1.0)
    spec = FORGE.load_data("digits").spec
    assert (spec.range, spec.limits, spec.extent) == ((0.0, 1.0), None, (0.0, 1.0))
