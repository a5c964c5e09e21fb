"""data.normalize: what a model sees, what the run stores, and the units of what a user reads."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch

from latentforge import DataSpec, Forge
from latentforge.contracts import Scaling
from latentforge.errors import ConfigError, RunFailed, UsageError

FORGE = Forge()
RANDOM = np.random.default_rng(0)
HIDDEN = RANDOM.standard_normal((300, 2))
MIXED = np.array([[1000.0, 0.01, 1.0, 0.5], [0.0, 0.002, -2.0, 1.0]])
TABLE = (HIDDEN @ MIXED + [5000, 3, -1, 0]).astype(np.float32)  # columns with different units
GAUSSIAN = {"name": "elbo", "likelihood": "gaussian", "sigma": 0.1}


def load(x, **options):
    return FORGE.load_data({"train": x, "test": x[:50], "normalize": True, **options})


def values(data, split="train"):
    images = data.split(split)
    return images.batch(torch.arange(len(images))).x


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return FORGE.train(
        "vae",
        data={"train": TABLE, "test": TABLE[:50], "normalize": True},
        loss=GAUSSIAN,
        model={"latent_dim": 2},
        train={"epochs": 40, "batch_size": 32, "lr": 5e-3},
        run=tmp_path_factory.mktemp("scaled") / "run",
        quiet=True,
    )


def test_each_value_of_vectors_is_standardized_by_the_training_split():
    data = load(TABLE)
    expected = (TABLE - TABLE.mean(0, dtype=np.float64)) / TABLE.std(0, dtype=np.float64)
    assert np.allclose(values(data), expected, atol=2e-5)
    assert np.allclose(values(data, "test"), expected[:50], atol=2e-5)
    assert data.spec.scaling.mean == pytest.approx(TABLE.mean(0, dtype=np.float64), rel=1e-6)
    assert data.spec.scaling.deviation == pytest.approx(TABLE.std(0, dtype=np.float64), rel=1e-6)
    assert data.spec.range is None


@pytest.mark.parametrize(
    ("shape", "options"),
    [((3, 8, 8), {}), ((3, 20), {"layout": "signal"})],
    ids=["image", "signal"],
)
def test_each_channel_is_standardized(shape, options):
    scale = np.array([1.0, 50.0, 0.01]).reshape(1, 3, *[1] * (len(shape) - 1))
    x = (RANDOM.standard_normal((60, *shape)) * scale + 4 * scale).astype(np.float32)
    data = load(x, **options)
    axes = (0, *range(2, x.ndim))
    assert data.spec.scaling.deviation == pytest.approx(x.std(axes, dtype=np.float64), rel=1e-5)
    seen = values(data)
    assert np.allclose(seen.mean(axes), 0, atol=1e-4)
    assert np.allclose(seen.std(axes, correction=0), 1, atol=1e-4)
    assert np.allclose(data.spec.restore(seen), x, rtol=1e-5, atol=1e-5)
    assert torch.allclose(data.spec.normalize(data.spec.restore(seen)), seen, atol=1e-4)


def test_streamed_values_are_those_in_memory():
    kept, streamed = (load(TABLE, stream=mode) for mode in ("never", "always"))
    assert kept.spec == streamed.spec
    assert torch.equal(values(kept), values(streamed))
    index = torch.tensor([5, 2])
    assert torch.equal(kept.split("train").raw(index), streamed.split("train").raw(index))


def test_integers_are_standardized_too():
    x = RANDOM.integers(0, 255, (40, 6, 6), dtype=np.uint8)
    assert np.allclose(values(load(x))[:, 0], (x - x.mean()) / x.std(), atol=1e-5)


def test_values_that_float32_rounds_are_not_called_constant(caplog):
    """Such as times in seconds since 1970."""
    x = TABLE.astype(np.float64)
    x[:, 1] = 1.7e9 + 3600 * HIDDEN[:, 0] / 10
    load(x, range="any")
    assert "1 of 4 values varies by less than a millionth of the mean" in caplog.text
    assert "constant" not in caplog.text
    caplog.clear()
    data = load(x - x.mean(0), range="any")  # as the message says
    assert "millionth" not in caplog.text
    assert values(data).std(0, correction=0).tolist() == pytest.approx([1.0] * 4, abs=1e-4)


def test_a_constant_value_is_centred_and_announced(caplog):
    x = TABLE.copy()
    x[:, 1] = 0.1  # which float32 rounds
    data = load(x)
    assert values(data)[:, 1].abs().max() < 1e-6
    assert data.spec.scaling.deviation[1] == 1.0
    assert "1 of 4 values is constant in the training split, so it is only centred" in caplog.text


def test_the_option_is_suggested_for_columns_with_other_units(caplog):
    FORGE.load_data({"train": TABLE, "test": TABLE, "range": "any"})
    code = caplog.text.rpartition("scale each one: data=")[2]
    assert "'normalize': True" in code
    caplog.clear()
    followed = eval(code, {"x": TABLE, "x_test": TABLE})
    assert FORGE.load_data(followed).spec.scaling
    assert caplog.text == ""


def test_pictures_have_the_units_of_the_data():
    spec = DataSpec((2,), "vector", range=None, limits=(0.0, 10.0), scaling=Scaling((5, 4), (2, 1)))
    x = torch.tensor([[[1.0, -1.0]]])  # any number of leading axes
    assert spec.restore(x).tolist() == [[[7.0, 3.0]]]
    assert spec.to_unit(x).flatten().tolist() == pytest.approx([0.7, 0.3])
    assert spec.from_unit(spec.to_unit(x)).flatten().tolist() == pytest.approx([1.0, -1.0])


def test_a_run_stores_its_numbers_and_its_metrics_say_so(run):
    manifest = json.loads((run.path / "run.json").read_text("utf-8"))
    stored = manifest["data"]["preprocessing"]["normalize"]
    assert stored["deviation"] == pytest.approx(TABLE.std(0, dtype=np.float64), rel=1e-6)
    assert manifest["protocol"]["elbo"].endswith("of standardized values")
    assert "standardized values" in manifest["protocol"]["mse_per_pixel"]
    assert "standardized" not in manifest["protocol"]["kl"]


def test_decoded_files_have_the_units_of_the_data(run, tmp_path):
    FORGE.encode(run, out=tmp_path / "codes.npz", split="test")
    FORGE.decode(run, tmp_path / "codes.npz", out=tmp_path / "decoded")
    with np.load(tmp_path / "decoded/decoded.npz") as file:
        error = np.abs(file["x"] - TABLE[:50]).mean(0) / TABLE.std(0)
    assert error.max() < 0.5


def test_arrays_of_explorers_have_the_units_of_the_data(run):
    found = run.explore("reconstruct", quiet=True)
    file = next(name for name in found["files"] if name.endswith("errors.npz"))
    with np.load(file) as arrays:
        assert np.allclose(arrays["x_some"], TABLE[: len(arrays["x_some"])], rtol=1e-5)
        assert np.abs(arrays["recon_some"] - arrays["x_some"])[:, 0].max() < 1000


def test_an_exported_graph_has_the_units_of_the_data(run, tmp_path):
    codes = None
    for part in ("encoder", "decoder"):
        FORGE.export(run, part, out=tmp_path / part)
        session = onnxruntime.InferenceSession(tmp_path / part / "model.onnx")
        given = {session.get_inputs()[0].name: TABLE[:50] if codes is None else codes}
        codes, *_ = session.run(None, given)
    error = np.abs(codes - TABLE[:50]).mean(0) / TABLE.std(0)
    assert error.max() < 0.5


def test_other_data_is_scaled_as_that_of_the_run(run):
    shifted = TABLE[:100] + np.array([1000, 0, 0, 0], np.float32)  # one deviation
    here = run.evaluate(data=shifted, measures=["mse_per_pixel"])["mse_per_pixel"]
    own = run.evaluate(data=TABLE[:100], measures=["mse_per_pixel"])["mse_per_pixel"]
    assert here > 5 * own  # its own mean would hide the shift


def test_values_that_are_not_standardized_are_refused(run):
    with pytest.raises(UsageError) as error:
        run.evaluate(data={"train": TABLE, "normalize": False})
    assert "trained with data.normalize=true" in str(error.value)
    assert "'normalize': True" in error.value.hint


def test_a_resumed_run_uses_the_stored_numbers(tmp_path):
    def train(folder, epochs):
        return FORGE.train(
            "vae",
            data={"train": TABLE, "test": TABLE[:50], "normalize": True},
            loss=GAUSSIAN,
            train={"epochs": epochs},
            run=tmp_path / folder,
            quiet=True,
        )

    whole, part = train("whole", 2), train("part", 1)
    data = {"train": TABLE, "test": TABLE[:50]}
    resumed = FORGE.resume(part.path, data=data, train={"epochs": 2}, quiet=True)
    for run in (whole, resumed):
        FORGE.export(run, format="safetensors", out=tmp_path / f"{run.name} weights")
    files = [tmp_path / f"{run.name} weights/model.safetensors" for run in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_edit_of_the_stored_numbers_is_noticed(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    file = copy / "run.json"
    manifest = json.loads(file.read_text("utf-8"))
    manifest["data"]["preprocessing"]["normalize"]["mean"][0] += 1
    file.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(RunFailed, match="was edited"):
        FORGE.resume(
            copy, data={"train": TABLE, "test": TABLE[:50]}, train={"epochs": 41}, quiet=True
        )


@pytest.mark.parametrize("options", [{"range": "unit"}, {"range": "counts"}], ids=str)
def test_other_ranges_are_refused(options):
    with pytest.raises(UsageError, match=r"data\.normalize=true needs data\.range=any"):
        load(TABLE, **options)


def test_a_loss_that_does_not_support_real_numbers_is_refused_before_the_data_is_read():
    with pytest.raises(ConfigError, match=r"data.range is any.*'likelihood': 'gaussian'"):
        FORGE.train("vae", data={"name": "digits", "normalize": True}, loss="elbo")


def test_names_and_paths_in_texts_are_kept():
    text = "runs/image/vae-image-1, image.csv and pixels.npz; the images of image-run"
    found = DataSpec((9,)).adapt(text)
    assert DataSpec((9,), "vector").adapt(text) == found.replace("the images", "the examples")


def test_texts_about_images_use_the_words_of_the_data():
    text = "nats per image, summed over pixels; mse_per_pixel: an image, images; Image 3"
    signal, vector = DataSpec((1, 9), "signal"), DataSpec((9,), "vector")
    assert DataSpec((1, 3, 3)).adapt(text) == text
    assert signal.adapt(text) == (
        "nats per signal, summed over values; mse_per_pixel: a signal, signals; Signal 3"
    )
    assert vector.adapt(text) == (
        "nats per example, summed over values; mse_per_pixel: an example, examples; Example 3"
    )


def test_noise_leaves_the_variance_of_each_value_at_one(run):
    found = run.explore("corruption", n=50, quiet=True)
    assert "x standardized" in found["protocol"]
    # the square of the difference is (1 - sqrt(1 - s^2))^2 E[x^2] + s^2, and E[x^2] is about 1
    assert found["metrics"]["mse_noisy_at_1.00"] == pytest.approx(2.0, abs=0.4)
