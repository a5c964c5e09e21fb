"""The shorter way around Adam's kernel ends at the bits of torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from latentforge import CallbackSpec, Forge, hookimpl
from latentforge.config.request import draft_request
from latentforge.config.resolve import resolve
from latentforge.engine.build import build_trainee
from latentforge.engine.fused_adam import QuickAdam, quick_update
from latentforge.engine.step import OPTIMIZERS
from latentforge.engine.step_runner import Stepper

CPU = torch.device("cpu")


def pair(optimizer="adam", **options):
    """A network and its optimizer, twice."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    net.to(memory_format=torch.channels_last)
    nets = [net, copy.deepcopy(net)]
    made = []
    for each in nets:
        groups = [{"params": list(each[0].parameters())}, {"params": [*each[2].parameters()]}]
        groups[1]["lr"] = 0.02
        made.append(OPTIMIZERS[optimizer](groups, lr=0.01, fused=True, **options))
    return nets, made


def steps(net, optimizer, take, count, start=0, without=None):
    for step in range(start, start + count):
        torch.manual_seed(step)
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        if step == without:
            net[0].bias.grad = None
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)  # as a schedule does
        take()


def same(nets, optimizers) -> bool:
    mine, theirs = (optimizer.state_dict()["state"] for optimizer in optimizers)
    return all(map(torch.equal, nets[0].parameters(), nets[1].parameters())) and all(
        torch.equal(mine[i][key], theirs[i][key]) for i in theirs for key in theirs[i]
    )


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("adam", {}),
        ("adam", {"weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
        ("adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("adam", {"maximize": True}),
        ("adamw", {"weight_decay": 0.1}),
    ],
)
def test_it_ends_at_the_bits_of_optimizer_step(optimizer, options):
    nets, optimizers = pair(optimizer, **options)
    quick = quick_update(optimizers[0])
    assert isinstance(quick, QuickAdam)
    steps(nets[0], optimizers[0], quick, 6)
    steps(nets[1], optimizers[1], optimizers[1].step, 6)
    assert same(nets, optimizers)


@pytest.mark.parametrize("without", [0, 3])
def test_a_parameter_without_a_gradient_is_left_alone_in_that_step(without):
    nets, optimizers = pair()
    steps(nets[0], optimizers[0], quick_update(optimizers[0]), 6, without=without)
    steps(nets[1], optimizers[1], optimizers[1].step, 6, without=without)
    assert same(nets, optimizers)


def test_it_goes_on_from_a_loaded_state():
    nets, optimizers = pair()
    steps(nets[1], optimizers[1], optimizers[1].step, 3)
    nets[0].load_state_dict(nets[1].state_dict())
    optimizers[0].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    steps(nets[0], optimizers[0], quick_update(optimizers[0]), 3, start=3)
    steps(nets[1], optimizers[1], optimizers[1].step, 3, start=3)
    assert same(nets, optimizers)


def test_others_take_their_own_step():
    parameters = [nn.Parameter(torch.zeros(3))]
    assert quick_update(torch.optim.Adam(parameters)) is None  # not fused
    assert quick_update(torch.optim.Adam(parameters, fused=True, amsgrad=True)) is None
    assert quick_update(torch.optim.SGD(parameters, fused=True)) is None


class Hooked:
    """A plugin whose callback hooks into the optimizer."""

    def __init__(self):
        self.steps = 0

    def attach(self, engines):
        engines.optimizer.register_step_pre_hook(self.count)

    def count(self, *_):
        self.steps += 1

    @hookimpl
    def latentforge_callbacks(self):
        yield CallbackSpec(name="hooked", summary="counts steps", build=lambda _: self)


def test_a_callback_that_hooks_into_the_optimizer_is_called_at_each_step(tmp_path):
    plugin = Hooked()
    forge = Forge(plugins=[plugin])
    train = {"epochs": 1, "batch_size": 500}
    run = forge.train("ae", data="digits", train=train, callbacks=["hooked"], run=tmp_path / "r")
    assert plugin.steps == run.manifest["steps"] > 1


@pytest.mark.parametrize(("optimizer", "kind"), [("adam", QuickAdam), ("sgd", type(None))])
def test_a_training_without_callbacks_takes_it(optimizer, kind):
    forge = Forge()
    draft, _ = draft_request(forge.registry, "ae", train={"optimizer": optimizer})
    config, data = resolve(draft, forge.registry), forge.load_data("digits")
    stepper = Stepper(build_trainee(config, data), data.split("train"), config, CPU)
    assert type(stepper.update) is kind
