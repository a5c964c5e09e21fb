"""Members that cannot be stacked are trained one by one, and the reason is recorded."""

from __future__ import annotations

import pytest
from torch import nn

from latentforge import Forge
from latentforge.engine.step import Trainee
from latentforge.engine.vectorized.equivalence import check_modules
from latentforge.engine.vectorized.noise import NotStackable

from ..params import slow_except

SMALL = {"encoder": [24], "decoder": [24], "latent_dim": 3}


def reasons(sweep):
    return {member["alone_because"] for member in sweep.members}


ODD_LOSS = """
from dataclasses import dataclass
from latentforge import LossSpec, ModelSpec, hookimpl
from latentforge_plugins.vae import VaeConfig
from latentforge_plugins.elbo import BetaElboConfig, needs

@dataclass(frozen=True)
class OddConfig(BetaElboConfig):
    odd: str = ""

def build(config, data):
    import math
    import torch
    from latentforge_plugins.elbo.loss import BetaElbo

    class Odd(BetaElbo):
        def __init__(self, config):
            super().__init__(config)
            self.seen = 0
            if config.odd == "number":
                self.factor = math.log(1 + float(config.beta))
            if config.odd == "buffer":
                self.register_buffer("steps", torch.zeros(()))

        def forward(self, model, batch, step):
            terms = super().forward(model, batch, step)
            if config.odd == "multinomial":
                torch.multinomial(torch.ones(3), 1)
            if config.odd == "looks" and terms.values["recon"] > 0:
                pass
            if config.odd == "buffer" and self.training:
                self.steps += 1
            if config.odd == "counts":  # its second step differs
                self.seen += 1
                extra = terms.values["recon"] * (5.0 if self.seen == 2 else 1.0)
                terms = terms._replace(values={**terms.values, "recon": extra})
            return terms

    return Odd(config)

@hookimpl
def latentforge_losses():
    yield LossSpec(name="odd", summary="-", build=build, config=OddConfig, needs=needs)
"""


@pytest.mark.parametrize(
    "odd",
    slow_except(["number", "looks"], ["number", "multinomial", "looks", "buffer", "counts"]),
)
def test_unstackable_loss_is_trained_one_by_one_with_a_reason(odd, tmp_path):
    plugin = tmp_path / "odd_loss.py"
    plugin.write_text(ODD_LOSS, "utf-8")
    made = Forge([str(plugin)]).sweep(
        "vae",
        model=SMALL,
        loss={"name": "odd", "odd": odd},
        train={"epochs": 1, "batch_size": 256},
        grid={"loss.beta": [1.0, 4.0]},
        out=tmp_path / "sweep",
        quiet=True,
    )
    assert [run.status for run in made.runs()] == ["done", "done"]
    [reason] = reasons(made)
    assert reason
    assert not any("together_with" in run.manifest for run in made.runs())


GREEDY = """
from latentforge import ModelSpec, hookimpl
from latentforge_plugins.autoencoder import AutoencoderConfig, build as build_ae

alive = []

def build(config, data):
    import torch

    class Greedy(torch.nn.Identity):
        def _apply(self, *args, **options):  # called by `to(device)`
            alive.append(self)
            if len(alive) == 2:
                raise RuntimeError("out of memory")
            return super()._apply(*args, **options)

    model = build_ae(config, data)
    model.greedy = Greedy()
    return model

@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="greedy",
        summary="-",
        build=build,
        config=AutoencoderConfig,
        provides={"encode", "decode", "decode_logits"},
        default_loss="reconstruction",
    )
"""


def test_members_that_run_out_of_memory_are_trained_one_by_one(tmp_path):
    plugin = tmp_path / "greedy.py"
    plugin.write_text(GREEDY, "utf-8")
    made = Forge([str(plugin)]).sweep(
        "greedy",
        train={"epochs": 1, "batch_size": 512},
        grid={"train.seed": [0, 1]},
        out=tmp_path / "sweep",
        quiet=True,
    )
    assert [run.status for run in made.runs()] == ["done", "done"]
    assert reasons(made) == {"RuntimeError: out of memory"}


@pytest.mark.parametrize("module", [nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Conv2d(1, 2, 3)])
def test_batch_norm_dropout_and_convolutions_are_not_stacked(module):
    with pytest.raises(NotStackable, match=type(module).__name__):
        check_modules(Trainee(nn.Sequential(nn.Linear(4, 4), module), nn.Identity()))
    check_modules(Trainee(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0)), nn.Identity()))
