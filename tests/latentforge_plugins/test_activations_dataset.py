"""The dataset `activations`: vectors of one layer of another run."""

from __future__ import annotations

import shutil

import pytest
import torch

from latentforge import Forge
from latentforge.errors import UsageError

FORGE = Forge()
TRAIN = {"epochs": 1, "batch_size": 32, "threads": 1, "device": "cpu"}
GAUSSIAN = {"name": "reconstruction", "likelihood": "gaussian"}
SMALL = {"hidden": [8], "latent_dim": 2}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "cnn"
    data = {"name": "digits", "size": 12, "validation": 0.1}
    return FORGE.train("cnn-classifier", data=data, train=TRAIN, run=path, quiet=True)


def train(classifier, run, **options):
    data = {"name": "activations", **options}
    roles, fixed = {"classifier": classifier}, {"loss": GAUSSIAN, "model": SMALL, "quiet": True}
    return FORGE.train("ae", data=data, roles=roles, train=TRAIN, run=run, **fixed)


@pytest.mark.parametrize("positions", ["mean", "flatten"])
def test_values_are_the_outputs_of_the_layer_for_each_split(classifier, tmp_path, positions):
    layers = list(classifier.load_model().layers())
    convolution = next(name for name in layers if "conv" in name.lower() or name == layers[0])
    run = train(classifier, tmp_path / "ae", layer=convolution, positions=positions)
    found = FORGE.encode(run, tmp_path / "codes.npz", split="all")
    model, splits = classifier.load_model(), FORGE.load_data({"name": "digits", "size": 12})
    outputs = []
    model.get_submodule(convolution).register_forward_hook(lambda m, i, o: outputs.append(o))
    x = splits.split("test").batch_at(range(20)).x
    with torch.no_grad():
        model(x)
    [maps] = outputs
    expected = maps.mean((2, 3)) if positions == "mean" else maps.flatten(1)
    assert run.manifest["data"]["shape"] == [expected.shape[1]]
    assert run.manifest["data"]["images"] == classifier.manifest["data"]["images"]
    assert found["images"] == classifier.manifest["data"]["images"]
    with torch.no_grad():
        codes = run.load_model().encode(expected).mode()
    import numpy as np

    stored = np.load(tmp_path / "codes.npz", allow_pickle=False)
    rows = stored["split"] == "test"
    assert np.allclose(stored["z"][rows][:20], codes.numpy(), atol=1e-4)


def test_run_can_be_evaluated_after_the_classifier_is_deleted(classifier, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(classifier.path, copy)
    run = train(copy, tmp_path / "ae")
    before = run.evaluate()
    shutil.rmtree(copy)
    assert FORGE.open_run(run.path).evaluate() == before
    assert FORGE.evaluate(run, options=["data.positions=mean"])["metrics"] == before


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"layer": "nothing"}, "the model has no layer 'nothing'", "choose from"),
        ({"positions": "max"}, "the configuration has an error", ""),
    ],
)
def test_wrong_options_are_refused(classifier, tmp_path, options, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        train(classifier, tmp_path / "ae", **options)
    assert hint in (caught.value.hint or "")
    assert not (tmp_path / "ae").exists()


def test_data_show_says_where_the_other_run_is_named(cli):
    said = cli("data", "show", "activations")
    assert said.code == 2
    assert "needs a run for role classifier" in said.err
    assert "only a training can name it, with --with classifier=RUN" in said.err
