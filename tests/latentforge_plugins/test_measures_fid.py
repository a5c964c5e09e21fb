"""fid against closed forms and scipy; its floor, its cache, and refused input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from latentforge_plugins.frechet import cache
from latentforge_plugins.frechet.gaussian import Fit, fit, frechet_distance
from latentforge_plugins.measures import Moments, products, select_random, squares
from scipy.linalg import sqrtm

from latentforge import Forge
from latentforge.errors import UsageError

# ---------------------------------------------------------------- the distance


def gaussian(size: int, seed: int, rank: int | None = None) -> Fit:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, rank or 2 * size, generator=generator, dtype=torch.float64)
    return Fit(torch.randn(size, generator=generator, dtype=torch.float64), root @ root.T / size)


def scipy_distance(a: Fit, b: Fit) -> float:
    root = sqrtm((a.covariance @ b.covariance).numpy())
    trace = np.trace(a.covariance + b.covariance) - 2 * np.trace(root.real)
    return float(((a.mean - b.mean) ** 2).sum() + trace)


def test_the_distance_of_diagonal_gaussians_has_its_closed_form():
    a = Fit(torch.tensor([1.0, 2.0]).double(), torch.diag(torch.tensor([4.0, 9.0]).double()))
    b = Fit(torch.tensor([0.0, 4.0]).double(), torch.diag(torch.tensor([1.0, 25.0]).double()))
    expected = (1 + 4) + (2 - 1) ** 2 + (3 - 5) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 3, 128])
def test_the_distance_matches_the_matrix_square_root_of_scipy(size):
    a, b = gaussian(size, 1), gaussian(size, 2)
    assert frechet_distance(a, b) == pytest.approx(scipy_distance(a, b), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_the_distance_of_commuting_gaussians_has_its_closed_form():
    a = gaussian(5, 1)
    scaled = Fit(a.mean + 1, 4 * a.covariance)  # tr (C^(1/2) - 2 C^(1/2))^2 = tr C
    expected = 5 + float(a.covariance.trace())
    assert frechet_distance(a, scaled) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [None, 20])
def test_the_distance_of_a_gaussian_to_itself_is_zero(rank):
    a = gaussian(64, 3, rank)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * float(a.covariance.trace()))


def test_moments_match_numpy_for_any_chunks_of_rows():
    rows = 50 + torch.randn(997, 7, generator=torch.Generator().manual_seed(0))
    moments, diagonal = Moments(products), Moments(squares)
    for part in rows.split([1, 0, 400, 96, 500]):
        moments.update(part)
        diagonal.update(part)
    gaussian = fit(moments)
    np.testing.assert_allclose(gaussian.mean, rows.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(gaussian.covariance, np.cov(rows.double().T), rtol=1e-9)
    np.testing.assert_allclose(diagonal.scatter / 997, rows.double().numpy().var(0), rtol=1e-9)


# ---------------------------------------------------------------- metrics of runs


@pytest.fixture
def forge(runs):
    return Forge()


def fid(forge: Forge, run: str = "runs/ae", classifier: str = "runs/cnn", split="test", **options):
    answer = forge.evaluate(
        run,
        split,
        measures=["fid"],
        roles={"classifier": classifier},
        options={"fid": {"grid": 1, **options}},
        device="cpu",
    )
    return answer["metrics"], answer["protocol"]["fid_recon"]


def reference_features(classifier, x: torch.Tensor) -> torch.Tensor:
    """Return the last convolution of 32x32 inputs before its ReLU, averaged over 8x8 maps."""
    maps = classifier.features[:7](F.pad(x, (2, 2, 2, 2)))
    assert bool((maps < 0).any())
    return maps.mean((2, 3)).double()


def fit_rows(rows: torch.Tensor) -> Fit:
    return Fit(rows.mean(0), torch.from_numpy(np.cov(rows.T.numpy())))


@torch.no_grad()
def test_metrics_match_reference_features_and_scipy(forge):
    metrics, protocol = fid(forge)
    images = forge.load_data("digits")
    classifier = forge.load_model(forge.open_run("runs/cnn"))
    ae = forge.load_model(forge.open_run("runs/ae"))
    cpu = torch.device("cpu")
    real, train = images.split("test").x / 255, images.split("train").x / 255
    reference = fit_rows(reference_features(classifier, real))
    others = fit_rows(reference_features(classifier, train[select_random(359, 1294, cpu)]))
    recon = fit_rows(reference_features(classifier, ae.decode(ae.encode(real).mode())))
    assert metrics["fid_floor"] == pytest.approx(scipy_distance(others, reference), rel=1e-3)
    assert metrics["fid_recon"] == pytest.approx(scipy_distance(recon, reference), rel=1e-3)
    rest = fit_rows(reference_features(classifier, train[select_random(359, 1294, cpu, start=359)]))
    assert metrics["fid_floor_train"] == pytest.approx(scipy_distance(rest, others), rel=1e-3)
    chosen = train[select_random(359, 1294, cpu)]
    unpaired = fit_rows(reference_features(classifier, ae.decode(ae.encode(chosen).mode())))
    expected = scipy_distance(unpaired, reference)
    assert metrics["fid_recon_other"] == pytest.approx(expected, rel=1e-3)
    assert metrics["fid_floor"] < 0.3 * min(metrics["fid_recon"], metrics["fid_samples_gaussian"])
    for name in ("fid_samples_gaussian", "fid_recon", "fid_recon_other"):
        ratio = metrics[name] / metrics["fid_floor"]
        assert metrics[f"{name}_over_floor"] == pytest.approx(ratio)
        assert 0 < metrics[f"{name}_se"] < 0.5 * metrics[name]
    for part in ("32 features", "layer features.6", "runs/cnn", "N=359", "a Gaussian fitted to"):
        assert part in protocol


def test_features_are_read_before_an_inplace_layer():
    from types import SimpleNamespace

    from latentforge_plugins.frechet.features import Features
    from torch import nn

    class InPlace(nn.Sequential):
        def layers(self):
            return ["0", "1"]

    model = InPlace(nn.Linear(6, 4), nn.ReLU(inplace=True))
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    run = SimpleNamespace(
        config={"model": {"name": "in-place"}}, manifest={"plugins": []}, path="runs/in-place"
    )
    with torch.no_grad():
        features = Features(SimpleNamespace(run=run, model=model), "", 2)
        assert features.layer == "0"
        torch.testing.assert_close(features(x), model[0](x))
        assert bool((model[0](x) < 0).any())


def test_features_are_pre_relu_maps_averaged_to_the_grid(runs, forge):
    from types import SimpleNamespace

    from latentforge_plugins.frechet.features import Features

    run = forge.open_run("runs/cnn")
    loaded = SimpleNamespace(run=run, model=forge.load_model(run))
    x = forge.load_data("digits").split("test").batch_at([1, 2, 3]).x
    with torch.no_grad():
        features = Features(loaded, "", 2)(x)
        maps = loaded.model.features[:7](F.pad(x, (2, 2, 2, 2)))
        assert features.shape == (3, 128)
        torch.testing.assert_close(features, F.avg_pool2d(maps, 4).flatten(1))
        assert Features(loaded, "features.8", 9)(x).shape == (3, 128)  # its maps are 2x2 already


def test_samples_are_drawn_from_the_prior_of_the_model(cli, forge):
    cli("train", "vae", "--data", "digits", "--epochs", 2, "--run", "runs/vae", "--quiet")
    metrics, protocol = fid(forge, "runs/vae")
    assert "decoded z from N(0, I)" in protocol
    assert metrics["fid_samples"] > metrics["fid_floor"]
    assert fid(forge, "runs/vae")[0] == metrics
    assert fid(forge, "runs/vae", images=330)[0]["fid_samples"] != metrics["fid_samples"]


@torch.no_grad()
def test_without_a_prior_samples_match_the_moments_of_the_codes(forge):
    from latentforge.contracts import EvaluateContext
    from latentforge.runs.compatibility import resolve_stored_config
    from latentforge.workflows.load import load_run

    run = forge.open_run("runs/ae")
    config = resolve_stored_config(forge.registry, run)
    cnn = forge.open_run("runs/cnn")
    roles = {"classifier": (cnn, resolve_stored_config(forge.registry, cnn))}
    opened = load_run(run, config, checkpoint="last", roles=roles, device="cpu", data=None)
    splits, loaded = opened.splits, opened.loaded
    spec = forge.registry.get("measures", "fid").spec
    measure = spec.build(
        spec.config(grid=1),
        EvaluateContext(
            model=loaded.model,
            loss=loaded.loss,
            data=splits.spec,
            images=splits.split,
            split="test",
            preprocessing=splits.preprocessing,
            fingerprint=splits.fingerprint,
            step=loaded.step,
            seed=0,
            roles=opened.roles,
        ),
    )
    codes = loaded.model.encode(splits.split("train").x / 255).mode()
    torch.manual_seed(0)
    z = measure.fitted_sampler()(100_000)
    assert z.shape == (100_000, 4)
    torch.testing.assert_close(z.mean(0), codes.mean(0), rtol=0, atol=0.05 * float(codes.std()))
    torch.testing.assert_close(z.T.cov(), codes.T.cov(), rtol=0, atol=0.05 * float(codes.var()))


def test_the_standard_error_is_that_of_other_samples(forge, cli):
    cli("train", "vae", "--data", "digits", "--epochs", 5, "--run", "runs/vae", "--quiet")
    run = forge.open_run("runs/vae")
    drawn = []
    for seed in range(24):  # other samples of the same model
        run.manifest["config"]["train"]["seed"] = seed
        drawn.append(fid(forge, run)[0])
    distances, errors = ([m[name] for m in drawn] for name in ("fid_samples", "fid_samples_se"))
    # the deviation of 24 distances has a standard error of 15 %
    assert np.std(distances, ddof=1) == pytest.approx(np.mean(errors), rel=0.5)


def test_the_train_split_is_compared_with_the_test_split(forge):
    metrics, protocol = fid(forge, split="train")
    assert "N of the train split" in protocol
    assert "real images of the test split" in protocol
    assert metrics["fid_floor"] < metrics["fid_recon"]


# ---------------------------------------------------------------- the cache


def cached_files() -> dict[str, Path]:
    return {path.stem: path for path in cache.cache_folder().glob("*.safetensors")}


def test_real_features_are_cached_per_classifier_layer_and_grid(forge, cli, work):
    first, _ = fid(forge)
    files = cached_files()
    assert len(files) == 3  # the reference and the two floors
    assert all(str(path).startswith(str(work.parent / "cache")) for path in files.values())
    assert fid(forge) == fid(forge)
    assert fid(forge)[0] == first
    assert cached_files() == files

    for key in files:  # edit the cache: the next call must use it
        fit = cache.read(key)
        cache.write(key, Fit(fit.mean + 1, fit.covariance))
    moved, _ = fid(forge)
    assert moved["fid_floor"] == pytest.approx(first["fid_floor"], rel=1e-3)  # both means moved
    assert moved["fid_recon"] > first["fid_recon"] + 1

    fid(forge, layer="features.3", grid=1)
    assert len(cached_files()) == 6
    cli(
        *("train", "cnn-classifier", "--data", "digits", "--epochs", 1, "--run", "runs/other"),
        *("--seed", 1, "--quiet"),
    )
    other, protocol = fid(forge, classifier="runs/other")
    assert len(cached_files()) == 9
    assert other["fid_floor"] != moved["fid_floor"]
    assert protocol != fid(forge)[1]


def edit_manifest(path: str, change) -> None:
    file = Path(path, "run.json")
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_another_version_of_the_network_does_not_use_the_cache(forge):
    def upgrade(manifest):
        for plugin in manifest["plugins"]:
            if plugin["kind"] == "models":
                plugin["version"] = "99.0"

    first, _ = fid(forge)
    edit_manifest("runs/cnn", upgrade)
    assert fid(forge)[0] == first
    assert len(cached_files()) == 6


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty", "a folder"])
def test_a_damaged_cache_is_recomputed_and_repaired(forge, damage):
    first, _ = fid(forge)
    for path in cached_files().values():
        content = path.read_bytes()
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage == "one bit":
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 64]) + content[-2:])
        else:
            path.write_bytes(content[:100] if damage == "cut short" else b"")
    assert fid(forge)[0] == first
    if damage != "a folder":
        assert all(cache.read(key) is not None for key in cached_files())
    assert not list(cache.cache_folder().glob(".*"))  # no temporary file remains


def test_a_cache_that_cannot_be_written_does_not_change_metrics(forge, monkeypatch, tmp_path):
    first, _ = fid(forge)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fid(forge)[0] == first


# ---------------------------------------------------------------- refused input


def test_fewer_than_ten_images_per_feature_are_refused_with_a_hint(forge):
    with pytest.raises(
        UsageError, match=r"128 features needs 1280 images.*but there are 359"
    ) as caught:
        fid(forge, grid=2)
    assert caught.value.hint == "options={'fid': {'grid': 1}}, or use more images"
    assert caught.value.message.endswith("359 in the test split, the smaller of the two")
    with pytest.raises(UsageError, match=r"32 features needs 320 images.*there are 319") as caught:
        fid(forge, images=319)
    layer = "options={'fid': {'grid': 1, 'images': 319, 'layer': 'features.3'}} (16 features)"
    images = "options={'fid': {'grid': 1, 'images': 359}}"
    assert caught.value.hint == f"{layer}, or {images}"
    assert "layer features.3" in fid(forge, images=319, layer="features.3")[1]
    with pytest.raises(UsageError, match=r"128 features needs 1280 images") as caught:
        fid(forge, grid=2, images=319)  # a smaller grid alone would be refused, too
    assert caught.value.hint == f"{layer}, or use more images"
    with pytest.raises(UsageError, match="needs 320 images") as caught:
        fid(forge, images=9)
    assert caught.value.hint.startswith("use a classifier with a narrower layer, or ")
    assert "N=320" in fid(forge, images=320)[1]
    with pytest.raises(UsageError, match="359 and 1294 images"):
        fid(forge, images=360)


def test_a_classifier_with_different_preprocessing_is_refused(forge, cli):
    cli(
        *("train", "cnn-classifier", "--data", "digits", "--epochs", 1, "--run", "runs/small"),
        *("--set", "data.size=20", "--quiet"),
    )
    with pytest.raises(
        UsageError, match="runs/small was trained with different preprocessing"
    ) as caught:
        fid(forge, classifier="runs/small")
    detail = "shape: [1, 20, 20] (classifier), [1, 28, 28] (run)"
    assert caught.value.details == (detail,)
    edit_manifest(
        "runs/cnn", lambda manifest: manifest["data"]["preprocessing"].update(binarize="threshold")
    )
    with pytest.raises(
        UsageError, match="runs/cnn was trained with different preprocessing"
    ) as caught:
        fid(forge)
    assert caught.value.details == ("binarize: 'threshold' (classifier), 'none' (run)",)


def train_on_noise(forge, classes: int) -> Path:
    """Train a classifier on noise with the preprocessing of digits; return its run."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (300, 28, 28), np.uint8), np.arange(300) % classes
    run = Path("runs/noise")
    forge.train("cnn-classifier", data=noise, train={"epochs": 1}, run=run, quiet=True)
    return run


def test_a_classifier_with_different_classes_is_refused(forge):
    message = (
        r"runs/noise was trained on in-memory, fingerprint [0-9a-f]{12}, "
        "which has different classes from this run's data"
    )
    with pytest.raises(UsageError, match=message) as caught:
        fid(forge, classifier=train_on_noise(forge, 14))
    assert caught.value.details == (
        "classes of the classifier: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (14 in total)",
        "classes of the run: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    )


def test_the_protocol_names_the_training_data_of_the_classifier(forge):
    fingerprint = forge.load_data("digits").fingerprint[:12]
    assert f"trained on digits, fingerprint {fingerprint})" in fid(forge)[1]
    protocol = fid(forge, classifier=train_on_noise(forge, 10))[1]
    assert "trained on in-memory, fingerprint " in protocol
    assert fingerprint not in protocol


def test_unlabelled_images_accept_a_classifier_of_the_same_shape(forge):
    x = forge.load_data("digits").splits
    data = {split: images.x.numpy() for split, images in x.items()}
    roles, options = {"classifier": "runs/cnn"}, {"fid": {"grid": 1}}
    answer = forge.evaluate("runs/ae", measures=["fid"], roles=roles, options=options, data=data)
    assert answer["metrics"] == fid(forge)[0]


def test_an_unknown_layer_is_refused_with_the_existing_layers(forge):
    with pytest.raises(UsageError, match=r"not a layer of runs/cnn") as caught:
        fid(forge, layer="features.66")
    assert "features.6" in caught.value.hint
    assert fid(forge, layer="features.6") == fid(forge)


def test_a_classifier_of_other_data_logs_a_warning(forge, caplog):
    fid(forge)
    assert "other data" not in caplog.text
    fid(forge, classifier=train_on_noise(forge, 10))
    assert "was trained on other data (in-memory" in caplog.text


def test_data_with_one_split_is_refused(forge):
    x = forge.load_data("digits").split("test").x.numpy()
    roles, options = {"classifier": "runs/cnn"}, {"fid": {"grid": 1}}
    with pytest.raises(UsageError, match="second split of real images, but there is only one"):
        forge.evaluate("runs/ae", measures=["fid"], roles=roles, options=options, data=x)


def test_the_command_line_accepts_the_classifier_by_role(cli, runs):
    command = ("evaluate", "runs/ae", "--measure", "fid", "--set", "fid.grid=1")
    result = cli(*command, "--with", "classifier=runs/cnn", "--json").json
    distances = {"fid_samples_gaussian", "fid_recon", "fid_recon_other"}
    assert set(result["metrics"]) == {
        *distances,
        *(f"{name}_se" for name in distances),
        *(f"{name}_over_floor" for name in distances),
        *("fid_floor", "fid_floor_train"),
    }
    weights = result["protocol"]["fid_floor"].split("weights ")[1][:12]
    assert int(weights, 16) > 0
    alone = cli(*command)
    assert alone.code == 2
    assert "--with classifier=RUN" in alone.err
    wrong = cli(*command, "--with", "classifier=runs/ae")
    assert wrong.code == 2
    assert "classify" in wrong.err
