"""`doctor` names the cause of runs with known faults, and finds nothing in healthy ones.

benchmarks/diagnosis.py does the same with 48 runs.
"""

from __future__ import annotations

import json

import pytest
import torch

from latentforge import Forge
from latentforge.engine.build import build_trainee
from latentforge.engine.learning_checks import check_rate
from latentforge.runs.compatibility import resolve_stored_config
from latentforge.workflows.load import load_run

SMALL = {"ae": {"hidden": [64]}, "vae": {"encoder": [64], "decoder": [64]}}


def warnings_of(run):
    return {f.check: f for f in Forge().diagnose(run) if f.severity == "warning"}


@pytest.mark.parametrize("model", ["ae", "mlp-classifier"])
def test_a_healthy_run_has_no_warnings(work, model):
    settings = {"model": SMALL.get(model), "train": {"epochs": 10}, "quiet": True}
    assert warnings_of(Forge().train(model, data="digits", **settings)) == {}


@pytest.mark.parametrize(
    ("model", "lr", "direction"),
    [("ae", 1e-6, "low"), ("mlp-classifier", 1e-6, "low"), ("mlp-classifier", 30.0, "high")],
)
def test_the_suggested_learning_rate_learns(work, model, lr, direction):
    forge, settings = Forge(), {"model": SMALL.get(model), "data": "digits", "quiet": True}
    run = forge.train(model, train={"epochs": 2, "lr": lr}, **settings)
    finding = warnings_of(run)["learning rate"]
    assert f"seems to be too {direction}" in finding.attempt
    rate = float(finding.attempt.partition("train.lr=")[2].partition(":")[0])
    again = forge.train(model, train={"epochs": 2, "lr": rate}, **settings)
    assert again.metrics["test"]["loss"] < 0.9 * run.metrics["test"]["loss"]


@pytest.mark.parametrize(("model", "lr"), [("mlp-classifier", 0.5), ("vae", 0.3)])
def test_a_rate_that_ruined_the_weights_is_replaced_by_one_that_learns(work, model, lr):
    forge, settings = Forge(), {"model": SMALL.get(model), "data": "digits", "quiet": True}
    run = forge.train(model, train={"epochs": 5, "lr": lr}, **settings)
    finding = warnings_of(run)["learning rate"]
    assert "training has raised the loss" in finding.saw
    assert "20 steps from the initial weights" in finding.saw
    rate = float(finding.attempt.partition("train.lr=")[2].partition(":")[0])
    again = forge.train(model, train={"epochs": 5, "lr": rate}, **settings)
    assert "learning rate" not in warnings_of(again)
    assert again.metrics["test"].get("accuracy", 1.0) > 0.85


def test_no_learning_rate_is_suggested_for_shuffled_labels(work):
    digits, order = Forge().load_data("digits"), torch.Generator().manual_seed(0)
    data = {}
    for name in ("train", "validation", "test"):
        split = digits.split(name)
        data[name] = (split.x, split.y[torch.randperm(len(split.y), generator=order)])
    train = {"epochs": 2, "lr": 1e-5}  # too low, but no rate helps
    run = Forge().train("mlp-classifier", data=data, train=train, quiet=True)
    found = {f.check: f for f in Forge().diagnose(run, data=data) if f.severity == "warning"}
    assert "shuffled or random" in found["labels"].attempt
    assert "learning rate" not in found


def test_another_rate_is_suggested_even_if_none_gives_a_finite_loss(work):
    forge = Forge()
    run = forge.train("ae", data="digits", train={"epochs": 1, "lr": 0.01}, quiet=True)
    config = resolve_stored_config(forge.registry, run)
    loaded = load_run(run, config, checkpoint="last", roles={}, device="cpu", data=None)
    initial, broken = (build_trainee(config, loaded.splits) for _ in range(2))
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(1e30)
    arguments = (loaded.splits.split("train"), config.train, loaded.loaded.step)
    [finding] = check_rate(broken, initial, *arguments)
    assert finding.attempt == "train.lr=0.001: the rate 0.01 seems to be too high"


@pytest.mark.parametrize("inverted", [True, False])
def test_labels_are_doubted_only_after_a_shift_is_fixed(work, inverted):
    digits, order = Forge().load_data("digits"), torch.Generator().manual_seed(0)
    train, test = digits.split("train"), digits.split("test")
    held_out = (255 - test.x, test.y)
    if not inverted:
        held_out = (test.x, test.y[torch.randperm(len(test.y), generator=order)])
    data = {"train": (train.x, train.y), "test": held_out}
    run = Forge().train("mlp-classifier", data=data, train={"epochs": 5}, quiet=True)
    found = warnings_of(run)
    assert ("shift" in found) == inverted
    assert found["labels"].attempt.startswith("first prepare all splits") == inverted
    assert "check that each label belongs to its image" in found["labels"].attempt


def test_an_autoencoder_that_paints_the_mean_image_is_found(work):
    train = {"epochs": 1, "lr": 1e-4}
    run = Forge().train("ae", data="digits", model=SMALL["ae"], train=train, quiet=True)
    finding = warnings_of(run)["reconstructions"]
    assert "the reconstructions explain" in finding.saw
    call = finding.attempt.partition("look at them with ")[2].partition(";")[0]
    eval(call, {"forge": Forge(), "RUN": run})


def test_every_split_is_checked_against_the_training_images(work):
    x = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = {"train": x[:60], "validation": x[60:], "test": 1 - x[:30]}
    data["validation"] = torch.cat([x[:15], x[60:75]])
    run = Forge().train("ae", data=data, train={"epochs": 1}, quiet=True)
    copies = [f for f in Forge().diagnose(run, data=data) if f.check == "copies"]
    assert [finding.saw for finding in copies] == [
        "15 of 30 validation images are also training images"
    ]


def test_warnings_of_the_training_are_reported_too(runs):
    path = runs / "ae/run.json"
    manifest = json.loads(path.read_text())
    finding = {"check": "posterior collapse", "severity": "warning", "saw": "s", "attempt": "a"}
    manifest["findings"] = [finding, {**finding, "severity": "note"}, {"severity": "warning"}]
    path.write_text(json.dumps(manifest))
    found = [f for f in Forge().diagnose(path.parent) if f.check == "posterior collapse"]
    assert [f.as_dict() for f in found] == [finding]


def test_only_layers_that_the_model_has_are_named(work):
    train = {"epochs": 5, "lr": 2e-3}
    run = Forge().train("cnn-classifier", data="digits", train=train, quiet=True)
    notes = [f.attempt for f in Forge().diagnose(run) if f.check == "running average"]
    assert len(notes) == 1
    assert "dropout" in notes[0]
    assert "batch norm" not in notes[0]
