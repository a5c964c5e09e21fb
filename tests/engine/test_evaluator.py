"""Metrics against independent implementations on the same images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from latentforge import Forge
from latentforge.engine import evaluator


@pytest.fixture(scope="module")
def images(forge):
    return forge.load_data("digits").split("test")


@pytest.fixture(scope="module")
def ae(forge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ae"
    return forge.train("ae", train={"epochs": 2}, run=folder, quiet=True)


@pytest.fixture(scope="module")
def cnn(forge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cnn"
    train = {"epochs": 6, "lr": 5e-3}
    return forge.train("cnn-classifier", train=train, run=folder, quiet=True)


@torch.no_grad()
def test_reconstruction_metrics_match_plain_torch(ae, images):
    x = images.x.double() / 255
    model = ae.load_model().double()
    recon = model.decode(model.encode(x).mode())
    bce = F.binary_cross_entropy(recon, x)
    metrics = ae.evaluate()
    assert metrics["bce_per_pixel"] == pytest.approx(bce.item(), rel=1e-5)
    assert metrics["recon"] == pytest.approx(bce.item() * 784, rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["recon"], rel=1e-5)
    assert metrics["mse_per_pixel"] == pytest.approx(F.mse_loss(recon, x).item(), rel=1e-5)


def test_accuracy_matches_scikit_learn(cnn, images):
    from sklearn.metrics import accuracy_score, log_loss

    model = cnn.load_model()
    with torch.no_grad():
        logits = model(images.x.float() / 255).double()
    metrics = cnn.evaluate()
    assert metrics["accuracy"] == pytest.approx(accuracy_score(images.y, logits.argmax(1)))
    assert 0.3 < metrics["accuracy"] < 1.0  # neither chance nor perfect: a wrong formula shows
    expected = log_loss(images.y, logits.softmax(1), labels=range(10))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_metrics_do_not_depend_on_the_batch_size(ae, cnn, monkeypatch):
    whole = ae.evaluate(), cnn.evaluate()
    monkeypatch.setattr(evaluator, "BATCH", 100)  # 359 images: the last batch is shorter
    assert ae.evaluate() == pytest.approx(whole[0], rel=1e-5)
    assert cnn.evaluate() == pytest.approx(whole[1], rel=1e-5)


def test_an_evaluation_is_stored_in_the_run_with_its_protocol(ae):
    import json

    result = Forge().evaluate(ae, "train", measures=["recon"])
    assert list(result["metrics"]) == ["recon"]
    line = json.loads((ae.path / "evaluations.jsonl").read_text().splitlines()[-1])
    assert line["metrics"] == result["metrics"]
    assert line["protocol"]["recon"].startswith("nats per image")
    assert (line["split"], line["checkpoint"]) == ("train", result["checkpoint"])
