"""Before a run is opened, the sizes of its model and loss are compared with the checkpoint's."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from latentforge import Forge, LatentSpec, LossSpec, ModelSpec, Size
from latentforge.contracts import Terms
from latentforge.errors import RunFailed
from latentforge.latent import Point

from ..plugin import plugin_of


@dataclass(frozen=True)
class Config:
    """`width` is the code's length."""

    width: Size = 4


class Linear(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.latent, self.shape = LatentSpec((config.width,)), data.shape
        self.down, self.up = nn.Linear(data.size, config.width), nn.Linear(config.width, data.size)

    def encode(self, x):
        return Point(self.down(x.flatten(1)))

    def decode(self, z):
        return self.up(z).sigmoid().unflatten(1, self.shape)


class Squares(nn.Module):
    def forward(self, model, batch, step):
        recon = model.decode(model.encode(batch.x).sample())
        return Terms({"l2": (recon - batch.x).square().flatten(1).sum(1).mean()})


@pytest.fixture
def built():
    """The device of each call of `build`, by component."""
    return {"model": [], "loss": []}


@pytest.fixture
def forge(built):
    def build(config, data, read=False):
        built["model"].append(torch.empty(0).device.type)
        torch.rand(3, device="cpu")  # must not change the caller's random numbers
        if read:  # such as a schedule of noise levels, which a build checks
            assert torch.linspace(0, 1, 5).max().item() == 1
        return Linear(config, data)

    def build_loss(config, data):
        built["loss"].append(torch.empty(0).device.type)
        return Squares()

    loss = LossSpec(name="squares", summary="", build=build_loss, needs={"encode", "decode"})
    models = [
        ModelSpec(
            name=name,
            summary="",
            build=lambda config, data, read=read: build(config, data, read),
            config=Config,
            provides={"encode", "decode"},
            default_loss="squares",
        )
        for name, read in (("without-values", False), ("with-values", True))
    ]
    return Forge([plugin_of(loss, *models)])


@pytest.fixture
def trained(forge, tmp_path):
    def train(model):
        x = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        options = {"epochs": 1, "batch_size": 20}
        return forge.train(model, data=x, train=options, run=tmp_path / model, quiet=True)

    return train


def test_opening_a_run_builds_its_model_and_loss_on_meta_first(forge, trained, built):
    run = trained("without-values")
    assert built == {"model": ["cpu"], "loss": ["cpu"]}
    state = torch.random.get_rng_state()
    model = forge.open_run(run.path).load_model()
    assert built == {"model": ["cpu", "meta", "cpu"], "loss": ["cpu", "meta", "cpu"]}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_a_build_that_reads_values_is_not_checked_and_works(forge, trained, built):
    run = trained("with-values")
    model = forge.open_run(run.path).load_model()
    assert built["model"] == ["cpu", "meta", "cpu"]
    x = torch.rand(2, 1, 3, 3)
    assert model.decode(model.encode(x).mode()).shape == x.shape


@pytest.mark.parametrize(
    ("name", "message", "devices"),
    [
        ("without-values", "run.json describes", ["meta"]),
        ("with-values", "size mismatch", ["meta", "cpu"]),
    ],
)
def test_a_model_larger_than_its_checkpoint_is_refused(
    forge, trained, built, name, message, devices
):
    """Without the check on meta, the weights show the difference, after the model was built."""
    run = trained(name)
    manifest = json.loads((run.path / "run.json").read_text())
    manifest["config"]["model"]["width"] = 400
    (run.path / "run.json").write_text(json.dumps(manifest))
    built["model"].clear()
    with pytest.raises(RunFailed, match="do not fit model") as caught:
        forge.open_run(run.path).load_model()
    assert message in caught.value.details[0]
    assert built["model"] == devices
