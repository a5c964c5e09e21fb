"""Models without an encoder can be sampled, and their samples compared with real images."""

from __future__ import annotations

import pytest
import torch

from latentforge import Forge, LatentSpec, LossSpec, ModelSpec
from latentforge.errors import UsageError
from tests.plugin import plugin_of

TRAIN = {"epochs": 1, "batch_size": 64, "threads": 1, "device": "cpu"}
DIGITS = {"name": "digits", "size": 8}


def build_model(config, data):
    class Generator(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.latent = LatentSpec((3,), prior="normal")
            self.net = torch.nn.Linear(3, data.size)

        def decode(self, z):
            return self.net(z).sigmoid().unflatten(1, data.shape)

    return Generator()


def build_loss(config, data):
    from latentforge.contracts import Terms

    class Moments(torch.nn.Module):
        def forward(self, model, batch, step):
            x = model.decode(torch.randn(len(batch.x), 3, device=batch.x.device))
            return Terms({"mean": (x.mean(0) - batch.x.mean(0)).square().sum()})

    return Moments()


MODEL = ModelSpec(
    name="generator",
    summary="A linear generator",
    build=build_model,
    provides={"decode", "prior"},
    default_loss="moments",
)
LOSS = LossSpec(name="moments", summary="Equal means", build=build_loss, needs={"decode"})


@pytest.fixture(scope="module")
def forge():
    return Forge([plugin_of(MODEL, LOSS)])


@pytest.fixture(scope="module")
def run(forge, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "generator"
    return forge.train("generator", data=DIGITS, train=TRAIN, run=path, quiet=True)


def test_samples_of_the_prior_are_drawn(run):
    found = run.explore("sample", n=100)
    assert {"nearest_train_prior", "nearest_train_test"} == set(found["metrics"])
    assert "test_recon" not in found["protocol"]
    assert any("no encoder" in note for note in found["notes"])
    assert any(file.endswith("samples.png") for file in found["files"])


def test_sources_that_need_codes_are_refused(run):
    with pytest.raises(UsageError, match="sources mixture need codes of images") as caught:
        run.explore("sample", sources=["mixture"])
    assert "prior" in caught.value.hint


def test_fid_compares_samples_only(forge, run, tmp_path):
    judge = forge.train(
        "mlp-classifier",
        data=DIGITS,
        model={"width": 8},
        train=TRAIN,
        run=tmp_path / "judge",
        quiet=True,
    )
    found = forge.evaluate(run, measures=["fid"], roles={"classifier": judge})
    assert "fid_samples" in found["metrics"]
    assert not [name for name in found["metrics"] if "recon" in name]
    assert "fid_recon" not in found["protocol"]["fid_samples"]


def test_model_that_only_decodes_cannot_be_sampled(forge, run):
    from dataclasses import replace

    from latentforge.config.capabilities import describe_missing

    message = describe_missing(
        "explorer 'sample'", {"generate"}, replace(MODEL, provides={"decode"})
    )
    assert message.startswith("explorer 'sample' needs generate;")
