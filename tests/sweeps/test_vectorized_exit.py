"""Members that leave a stacked group early, without an effect on the others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from latentforge import Forge, LossSpec
from latentforge.contracts import Terms

from ..plugin import plugin_of

SMALL = {"encoder": [24], "decoder": [24], "latent_dim": 3}


def test_failing_member_does_not_change_the_others(tmp_path):
    request = {"model": SMALL, "train": {"epochs": 2, "batch_size": 128, "optimizer": "sgd"}}
    both = [
        Forge().sweep(
            "vae", **request, grid={"train.lr": rates}, out=tmp_path / str(len(rates)), quiet=True
        )
        for rates in ([1e30, 1e-4, 1e-5], [1e-4, 1e-5])
    ]
    assert both[0].status == "failed"
    ruined, *others = both[0].runs()
    assert ruined.status == "failed"
    assert "at step 2" in ruined.manifest["error"]
    assert {member["alone_because"] for member in both[0].members} == {""}
    for one, other in zip(others, both[1].runs(), strict=True):
        assert one.status == "done"
        assert one.metrics["test"] == pytest.approx(other.metrics["test"], rel=1e-4)


class Growing(nn.Module):
    """A loss whose second term overflows after about 80 steps at a high learning rate."""

    def __init__(self, config):
        super().__init__()
        self.gain = config.gain
        self.grown = nn.Parameter(torch.zeros(()))

    def forward(self, model, batch, step):
        recon = model.encode(batch.x).mode().square().mean() - self.grown
        weights = {"far": self.gain}
        return Terms({"recon": recon, "far": (1e3 * self.grown - 700).exp()}, weights)


@dataclass(frozen=True)
class GrowingConfig:
    gain: float = 1.0


def test_infinite_term_of_weight_0_ends_only_its_member(tmp_path):
    growing = LossSpec(
        name="growing",
        summary="overflows",
        build=lambda config, data: Growing(config),
        config=GrowingConfig,
        needs={"encode"},
    )
    sweep = Forge([plugin_of(growing)]).sweep(
        "ae",
        model={"hidden": [4], "latent_dim": 2},
        loss="growing",
        train={"epochs": 8, "batch_size": 100},
        grid={"loss.gain": [0.0, 1e-30], "train.lr": [1e-5, 1e-2]},
        out=tmp_path / "s",
        quiet=True,
    )
    assert {member["alone_because"] for member in sweep.members} == {""}
    # with a nonzero weight, the gradient keeps the term finite
    assert [member["status"] for member in sweep.members] == ["done", "failed", "done", "done"]
    [error] = sweep.failed.values()
    assert "the term 'far', whose weight is 0, became" in error


def test_early_stopping_ends_only_its_member(tmp_path):
    made = Forge().sweep(
        "vae",
        model=SMALL,
        train={"epochs": 5, "batch_size": 256, "patience": 1, "min_delta": 0.5},
        grid={"train.lr": [1e-12, 1e-2]},
        out=tmp_path / "sweep",
        quiet=True,
    )
    still, moving = made.runs()
    assert {member["alone_because"] for member in made.members} == {""}
    assert (still.status, moving.status) == ("done", "done")
    assert still.manifest["epochs"] == 2
    assert "validation loss has not improved for" in still.manifest["stopped"]
    assert moving.manifest["epochs"] == 5
    assert still.metrics["test"]
