"""The sparse autoencoder in tests/external/latentforge-sae."""

import importlib
import shutil
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

from latentforge import DataSpec, Forge
from latentforge.contracts import Batch, Step


@pytest.fixture
def package(external):
    return external("sae")


@pytest.fixture
def parts(package):
    return importlib.import_module("latentforge_sae.parts")


def test_planted_directions_are_found(package, parts):
    torch.manual_seed(0)
    planted = nn.functional.normalize(torch.randn(12, 16), dim=1)
    x = (torch.rand(2000, 12) * (torch.rand(2000, 12) < 0.15)) @ (5 * planted)
    config = package.SparseAutoencoderConfig(features=24)
    model = parts.SparseAutoencoder(config, DataSpec((16,), "vector", range=None))
    loss = parts.SparseLoss(package.SparseLossConfig(sparsity=0.2))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    batch = Batch(x, None, torch.arange(len(x)))
    for step in range(400):
        optimizer.zero_grad()
        loss(model, batch, Step(step, 400, 2000, 1)).total().backward()
        optimizer.step()
        with torch.no_grad():
            model.after_step()
    assert torch.allclose(model.directions.norm(dim=1), torch.ones(24))
    assert (planted @ model.directions.T).max(1).values.min() > 0.9


def test_the_measure_is_that_of_sklearn(parts):
    measure, x, z = parts.Sparsity(), torch.randn(30, 5), torch.randn(30, 8).relu()
    z[:, 2] = 0
    recon = x + 0.3 * torch.randn(30, 5)
    for part in (slice(0, 20), slice(20, 30)):
        batch = SimpleNamespace(x=x[part])
        measure.update(SimpleNamespace(batch=batch, recon=recon[part], z=z[part]))
    metrics = measure.compute()
    expected = r2_score(x, recon, multioutput="variance_weighted")
    assert metrics["explained_variance"] == pytest.approx(expected, abs=1e-6)
    assert metrics["sparsity"] == pytest.approx(float((z > 0).sum(1).float().mean()))
    assert metrics["dead_features"] == 1 / 8


def test_the_units_are_outputs_of_the_layer(package):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    net.layers = lambda: ["1", "2"]
    index = torch.arange(40)
    splits = {name: Batch(torch.rand(40, 1, 3, 4), index % 3, index) for name in ("train", "test")}

    def images(split):
        batch = splits[split]
        return SimpleNamespace(
            y=batch.y, batches=lambda size: (batch.select(slice(i, i + 9)) for i in range(0, 40, 9))
        )

    role = SimpleNamespace(model=net, data=SimpleNamespace(classes=("x", "y", "z")), images=images)
    arrays = package.load(package.HiddenUnitsConfig(), "test", {"classifier": role})
    scale = net[:3](splits["train"].x).square().mean().sqrt()
    assert torch.allclose(arrays.x, net[:3](splits["test"].x) / scale)
    assert torch.equal(arrays.y, splits["test"].y)


@pytest.mark.parametrize("validation", [0.2, 0])
def test_a_run_works_without_that_of_the_classifier(package, tmp_path, validation):
    forge = Forge(plugins=[package])
    data = {"name": "digits", "validation": validation}
    train = {"epochs": 1}
    other = forge.train("mlp-classifier", data=data, train=train, run=tmp_path / "c", quiet=True)
    run = forge.train(
        "sparse-autoencoder",
        data="hidden-units",
        roles={"classifier": other},
        train=train,
        run=tmp_path / "sae",
        quiet=True,
    )
    assert run.manifest["data"]["images"] == other.manifest["data"]["images"]
    shutil.rmtree(other.path)
    assert run.evaluate() == run.metrics["test"]


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("sae")
