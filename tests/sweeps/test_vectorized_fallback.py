"""Members that cannot be stacked are trained one by one, and the reason is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from latentforge import Forge
from latentforge.config.request import draft_request
from latentforge.config.resolve import resolve
from latentforge.data.loading import load_splits
from latentforge.engine.build import build_trainee
from latentforge.engine.step import Trainee
from latentforge.engine.vectorized.equivalence import check_modules, find_obstacle
from latentforge.engine.vectorized.noise import NotStackable
from latentforge.sweeps.grid import create_members, draft_member

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
    from torch._C._functorch import is_batchedtensor
    from latentforge_plugins.elbo.loss import BetaElbo

    class Odd(BetaElbo):
        def __init__(self, config):
            super().__init__(config, data)
            self.seen = 0
            if config.odd == "number":
                self.factor = math.log(1 + float(config.beta))
            if config.odd == "buffer":
                self.register_buffer("steps", torch.zeros(()))

        def forward(self, model, batch, step):
            odd, together = config.odd, is_batchedtensor(batch.x)
            if odd == "fails" and step.index == 2:  # this step is not compared before the training
                raise ValueError("a fault")
            terms = super().forward(model, batch, step)
            if odd == "transposed":
                torch.randn_like(batch.x.flatten(1)[:2].t())
            if odd == "other noise":
                torch.rand((3,) if together else (2,))
            if odd == ("more noise" if together else "less noise"):
                torch.rand(2)
            kl = terms.values["kl"]
            changes = {"term": {"more": kl}, "gradient": {"kl": kl.detach()}, "inf": {"kl": kl / 0}}
            if together and odd in changes:
                terms = terms._replace(values={**terms.values, **changes[odd]})
            if together and odd == "weight":
                terms = terms._replace(weights={"kl": 3.0})
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


def forge_with(plugin):
    plugin.write_text(ODD_LOSS, "utf-8")
    return Forge([str(plugin)])


@pytest.mark.parametrize(
    "odd",
    slow_except(["number", "looks"], ["number", "multinomial", "looks", "buffer", "counts"]),
)
def test_unstackable_loss_is_trained_one_by_one_with_a_reason(odd, tmp_path):
    made = forge_with(tmp_path / "odd_loss.py").sweep(
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


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("transposed", "its noise is not a contiguous tensor"),
        *((f"{n} noise", "its steps do not all draw the same") for n in ("other", "more", "less")),
        ("term", "its loss has different terms under vmap"),
        ("weight", "the weight of its term 'kl' differs under vmap"),
        ("gradient", "the gradient of its model.encoder"),
        ("inf", "its loss is not finite under vmap"),
    ],
)
def test_loss_that_differs_under_vmap_is_not_stacked(odd, reason, tmp_path):
    registry = forge_with(tmp_path / "odd_loss.py").registry
    draft, _ = draft_request(registry, "vae", model=SMALL, loss={"name": "odd", "odd": odd})
    members = create_members({"loss.beta": [1.0, 4.0]})
    configs = [resolve(draft_member(draft, member), registry) for member in members]
    splits = load_splits(configs[0].dataset, configs[0].data)
    trainees = [build_trainee(config, splits) for config in configs]
    images, device = splits.split("train"), torch.device("cpu")
    assert find_obstacle(trainees, configs, images, device, splits.spec).startswith(reason)


def test_error_in_a_step_ends_all_members_of_the_group(tmp_path):
    request = {"model": SMALL, "loss": {"name": "odd", "odd": "fails"}, "quiet": True}
    forge = forge_with(tmp_path / "odd_loss.py")
    made = forge.sweep("vae", **request, grid={"loss.beta": [1.0, 4.0]}, out=tmp_path / "sweep")
    assert reasons(made) == {""}
    for member in made.members:
        assert member["status"] == "failed"
        assert "step 3 of 2 members trained together" in member["error"]


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


def test_members_with_streamed_or_damaged_images_are_trained_one_by_one(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((40, 4, 4), np.float32))
    data = {"name": "arrays", "path": str(tmp_path / "x.npy"), "stream": "always"}
    request = {"data": data, "grid": {"train.seed": [0, 1]}, "train": {"epochs": 1}, "quiet": True}
    made = Forge().sweep("ae", model={"hidden": [4]}, out=tmp_path / "s", **request)
    assert (made.status, reasons(made)) == ("done", {"the images are streamed"})
    (tmp_path / "x.npy").write_bytes(b"damaged")
    made = Forge().sweep("ae", out=tmp_path / "t", **request)
    assert made.status == "failed"
    assert "x.npy" in reasons(made).pop()
