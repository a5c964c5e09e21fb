"""Metrics against independent implementations on the same images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from latentforge import Forge, LossSpec
from latentforge.contracts import Terms
from latentforge.engine import evaluator
from latentforge.errors import UsageError
from latentforge.latent import Gaussian

from ..plugin import plugin_of

IN_NATS = {"recon", "recon_mean", "elbo", "elbo_mean"}


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


class Absolute(torch.nn.Module):
    """A loss that declares no likelihood."""

    def forward(self, model, batch, step):
        recon = model.decode(model.encode(batch.x).sample())
        return Terms({"l1": (recon - batch.x).abs().flatten(1).sum(1).mean()})


class Declared(Absolute):
    likelihood = Gaussian(0.5)


class Without(Absolute):
    likelihood = None


@pytest.fixture(scope="module")
def plain_forge():
    needs = {"encode", "decode"}
    losses = [
        LossSpec(
            name=loss.__name__.lower(), summary="x", build=lambda c, d, cls=loss: cls(), needs=needs
        )
        for loss in (Absolute, Declared, Without)
    ]
    return Forge([plugin_of(*losses)])


def train_vae(forge, folder, loss="absolute", quiet=True, **options):
    model = {"encoder": [8], "decoder": [8], "latent_dim": 2}
    train = {"epochs": 1, "batch_size": 256, **options}
    return forge.train("vae", model=model, loss=loss, train=train, run=folder, quiet=quiet)


def test_without_a_likelihood_no_default_measure_is_in_nats_and_one_line_says_so(
    plain_forge, tmp_path, capsys, caplog
):
    run = train_vae(plain_forge, tmp_path / "a", quiet=False)
    [line] = [line for line in capsys.readouterr().err.splitlines() if "likelihood" in line]
    assert line.startswith("warning: loss 'absolute' declares no likelihood p(x|z)")
    assert {*line.partition("measures: ")[2].partition(";")[0].split(", ")} == IN_NATS
    assert "add an attribute `likelihood` to the loss" in line
    assert {"loss", "kl", "mse_per_pixel"} <= {*run.metrics["test"]}
    assert not {*run.metrics["test"]} & {*IN_NATS, "recon_se", "elbo_se"}
    assert "recon" not in run.manifest["protocol"]

    caplog.clear()
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-5)
    [message] = caplog.messages
    assert message == line.removeprefix("warning: ")


def test_a_loss_without_a_likelihood_on_purpose_gives_no_warning(
    plain_forge, tmp_path, capsys, caplog
):
    run = train_vae(plain_forge, tmp_path / "w", loss="without", quiet=False)
    assert not {*run.metrics["test"]} & {*IN_NATS}
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-5)
    assert "likelihood" not in capsys.readouterr().err + caplog.text
    with pytest.raises(UsageError, match="loss 'without' does not declare"):
        run.evaluate(measures=["recon"])


@pytest.fixture(scope="module")
def plain_run(plain_forge, tmp_path_factory):
    return train_vae(plain_forge, tmp_path_factory.mktemp("runs") / "plain")


@pytest.mark.parametrize("name", ["recon", "elbo_mean", "nll"])
def test_without_a_likelihood_a_requested_measure_in_nats_is_refused(plain_run, name):
    with pytest.raises(UsageError, match="loss 'absolute' does not declare") as error:
        plain_run.evaluate(measures=["loss", name])
    assert f"measure {name!r} needs the likelihood" in error.value.message
    assert "attribute `likelihood`" in error.value.hint
    assert not (plain_run.path / "evaluations.jsonl").exists()


def test_without_a_likelihood_recon_is_refused_as_monitor_before_the_run(plain_forge, tmp_path):
    with pytest.raises(UsageError, match="measure 'recon' needs the likelihood"):
        train_vae(plain_forge, tmp_path / "a", monitor="recon")
    assert not (tmp_path / "a").exists()


def test_a_declared_likelihood_of_a_third_party_loss_is_used(plain_forge, tmp_path, recwarn):
    run = train_vae(plain_forge, tmp_path / "a", "declared", monitor="recon")
    assert {*run.metrics["test"]} >= IN_NATS
    assert "Gaussian of sigma 0.5" in run.manifest["protocol"]["recon"]
    assert not [w for w in recwarn if "likelihood" in str(w.message)]
