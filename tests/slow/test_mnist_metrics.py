"""The metrics that runs on real MNIST reach, and those of guided generation, inpainting and the
latent map with these runs."""

from __future__ import annotations

import pytest

from latentforge import open_run

pytestmark = pytest.mark.slow
AE, MLP = "latent-differentiation-ae", "latent-differentiation-classifier"
GUIDED = ("guided", "--with", f"classifier={MLP}", "--with", "judge=cnn", "--set", "n=500")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mnist")


@pytest.fixture(scope="module")
def ae(reproduce, folder):
    reproduce(folder, AE)
    return AE


@pytest.fixture(scope="module")
def classifiers(reproduce, latentforge, folder):
    """A classifier that guides, and one that judges; the metrics of the judge."""
    reproduce(folder, MLP)
    return latentforge(
        folder,
        *("train", "cnn-classifier", "--data", "mnist", "--epochs", "12", "--batch-size", "128"),
        *("--lr", "6e-3", "--set", "train.schedule.name=cosine", "--seed", "0", "--run", "cnn"),
    )["metrics"]


@pytest.fixture(scope="module")
def vae(latentforge, folder):
    """The metrics of the run `vae`, with 16 dimensions."""
    return latentforge(folder, "train", "--preset", "vanilla-vae", "--run", "vae")["metrics"]


@pytest.fixture(scope="module")
def explore(latentforge, folder):
    def call(run, explorer, *arguments):
        return latentforge(folder, "explore", explorer, run, *arguments)["metrics"]

    return call


def test_the_classifier_has_7178_parameters_and_reaches_98_5_percent(classifiers, folder):
    model = open_run(folder / "cnn").load_model()
    assert sum(p.numel() for p in model.parameters()) == 7178
    assert classifiers["test"]["accuracy"] >= 0.985


def test_the_vae_reaches_its_metrics_and_its_likelihood_exceeds_the_elbo(vae, latentforge, folder):
    assert vae["train"]["loss"] == pytest.approx(105.0, abs=0.7)
    assert vae["test"]["elbo"] == pytest.approx(-104.4, abs=0.7)
    options = ("--measure", "nll", "--set", "nll.samples=200")
    nll = latentforge(folder, "evaluate", "vae", *options)["metrics"]
    assert 90 < nll["nll"] < -vae["test"]["elbo"]
    assert nll["nll_se"] < 0.1
    assert nll["nll_image_se"] < 0.5


@pytest.mark.usefixtures("ae", "classifiers")
def test_guided_search_in_2_dimensions_succeeds_for_99_percent(explore):
    found = explore(AE, *GUIDED)
    assert found["success_share"] >= 0.99
    assert found["judge_agreement"] >= 0.97
    assert found["success_at_start"] <= 0.05  # it is search, not retrieval


@pytest.mark.usefixtures("vae", "classifiers")
def test_guided_search_in_16_dimensions_succeeds_for_99_5_percent(explore):
    found = explore("vae", *GUIDED)
    assert found["success_share"] >= 0.995
    assert found["judge_agreement"] >= 0.97
    assert found["success_at_start"] <= 0.05


@pytest.mark.usefixtures("ae", "classifiers")
def test_the_search_of_the_original_publication_rarely_succeeds(explore):
    found = explore(AE, *GUIDED, "--preset", "latent-differentiation-search")
    assert 0.08 <= found["success_share"] <= 0.35
    assert found["judge_agreement"] <= found["success_share"] + 0.05


@pytest.mark.usefixtures("vae")
def test_inpainting_has_a_lower_error_than_all_baselines(explore):
    found = explore("vae", "guided", "--preset", "inpaint-lower-half")
    baselines = [found[f"hidden_mse_{name}"] for name in ("class_mean", "nearest", "neighbours")]
    assert found["hidden_mse_per_pixel"] < min(baselines)


@pytest.mark.usefixtures("vae")
def test_the_tsne_map_preserves_the_classes_of_neighbours(explore):
    found = explore("vae", "latent-map", "--set", "n=5000")
    assert found["knn_accuracy_map"] >= found["knn_accuracy_codes"] - 0.02
    assert found["knn_accuracy_codes"] >= 0.93  # or there is nothing to preserve
