"""Weights of loss terms that alternate from step to step are refused before the first step."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from latentforge import Forge, LossSpec
from latentforge.contracts import Terms
from latentforge.engine.loss_weights import find_alternation
from latentforge.errors import PluginError
from latentforge.runs.checkpoint import CheckpointStore

from ..plugin import plugin_of

TOTAL = 100


def found(weight, total=TOTAL):
    return find_alternation(lambda step: {"recon": 1.0, "critic": weight(step)}, total)


def in_turn(period):
    return lambda step: float(step % period == 0)


@pytest.mark.parametrize("period", range(2, 8))
@pytest.mark.parametrize("total", range(TOTAL, TOTAL + 8))
def test_a_term_that_is_trained_in_turn_is_found_for_every_last_step(period, total):
    rarely, often = found(in_turn(period), total), found(lambda i: 1 - in_turn(period)(i), total)
    assert rarely is not None
    assert often is not None or period > 6  # the other term is zero only once in 12 steps
    a, b = rarely.step, rarely.step + 1
    assert rarely.numbers == (in_turn(period)(a), in_turn(period)(b))
    assert total - 12 < a < b < total  # two steps that are trained


@pytest.mark.parametrize(
    "weight",
    [
        lambda step: 1.0,
        lambda step: 0.0,
        lambda step: step / TOTAL,
        lambda step: float(step >= TOTAL - 5),  # a warm-up that ends late
        lambda step: float(step < TOTAL - 5),
        lambda step: float(step < TOTAL),  # a schedule whose end only the evaluations see
        lambda step: abs(step - (TOTAL - 5)) / 50,  # a cycle that touches zero
        lambda step: (step - 95) % 20 / 20,  # a cycle that starts again at zero
        lambda step: 2.0 if step % 2 else 0.5,
        lambda step: float(step % 2) if step < TOTAL - 12 else 1.0,  # long before the end
    ],
)
def test_a_schedule_is_accepted(weight):
    assert found(weight) is None


def test_a_missing_weight_is_one():
    weights = lambda step: {"critic": 0.0} if step % 2 else {}  # noqa: E731
    assert find_alternation(weights, TOTAL).numbers in ((0.0, 1.0), (1.0, 0.0))


def test_the_first_step_is_not_called():
    called = []
    find_alternation(lambda step: called.append(step) or {}, 3)
    assert called == [1, 2, 3]


class InTurn(nn.Module):
    """A loss that notes its calls, draws noise everywhere and changes all of its state."""

    calls: list[tuple[int, int, bool, bool]] = []  # noqa: RUF012

    def __init__(self, period=0, fails=False):
        super().__init__()
        self.period, self.fails = period, fails
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros(()))
        self.seen = 0

    def forward(self, model, batch, step):
        self.calls.append((step.index, len(batch.x), self.training, torch.is_grad_enabled()))
        if self.fails and not self.training:
            raise ValueError("not in evaluation mode")
        self.seen += 1
        self.steps += 1
        noise = torch.rand(()) + random.random() + np.random.rand() + self.seen + self.steps
        recon = (model.decode(model.encode(batch.x).sample()) - batch.x).square().mean()
        terms = {"recon": recon * noise, "critic": self.scale.square()}
        return Terms(terms, {"critic": float(step.index % self.period == 0)} if self.period else {})


def train(folder, loss, **train):
    spec = LossSpec(name="gan", summary="x", build=lambda c, d: loss, needs={"encode", "decode"})
    options = {"model": {"hidden": [8], "latent_dim": 2}, "loss": "gan", "run": folder}
    InTurn.calls.clear()
    random.seed(0)
    np.random.seed(0)
    settings = {"epochs": 1, "batch_size": 256, **train}
    return Forge([plugin_of(spec)]).train("ae", train=settings, quiet=True, **options)


def test_a_loss_that_alternates_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(PluginError) as error:
        train(tmp_path / "a", InTurn(period=2), epochs=4)
    assert "loss 'gan': the weight of the term 'critic' alternates: it is " in error.value.message
    assert error.value.message.endswith("0 in step 14 and 1 in step 15")
    assert "loss 'gan' of plugin Plugin" in error.value.details
    assert "constant weights" in error.value.hint
    assert "the optimizer trains all terms in each step" in error.value.hint
    assert "a later version" in error.value.hint
    assert [step for step, *_ in InTurn.calls] == list(range(13, 25))
    assert {tuple(rest) for _, *rest in InTurn.calls} == {(8, False, False)}


class ValueInTurn(InTurn):
    def forward(self, model, batch, step):
        values = super().forward(model, batch, step).values
        return Terms({**values, "critic": values["critic"] * (step.index % 2) * 3})


def test_a_term_whose_value_alternates_is_refused(tmp_path):
    with pytest.raises(PluginError, match="the value of the term 'critic' alternates") as error:
        train(tmp_path / "a", ValueInTurn(), epochs=4)
    numbers = map(float, re.findall(r"(\S+) in step", error.value.message))
    assert {*numbers} == {0, 3}


class Hinge(InTurn):
    def forward(self, model, batch, step):
        values = super().forward(model, batch, step).values
        return Terms({**values, "hinge": torch.randn(()).relu() + 0 * values["recon"]})


def test_a_term_that_the_noise_makes_zero_is_accepted(tmp_path):
    assert train(tmp_path / "a", Hinge(), epochs=4).status == "done"


def test_the_check_does_not_change_the_training(tmp_path, monkeypatch):
    run = train(tmp_path / "a", InTurn())
    monkeypatch.setattr(
        "latentforge.workflows.session.check_loss_weights", lambda loss, steps: None
    )
    plain = train(tmp_path / "b", InTurn())
    assert run.history()[0]["train"] == plain.history()[0]["train"]
    one, other = (CheckpointStore(each.path / "checkpoints").load("last") for each in (run, plain))
    for group in ("model", "loss"):
        tensors = other.tensors(group)
        assert all(torch.equal(v, tensors[name]) for name, v in one.tensors(group).items())


def test_an_error_of_the_loss_in_the_check_is_not_reported(tmp_path):
    """The evaluation at the end of the epoch reports it like every other one."""
    with pytest.raises(PluginError, match="measure 'loss' failed: ValueError: not in evaluation"):
        train(tmp_path / "a", InTurn(fails=True))
    assert any(training for *_, training, _ in InTurn.calls)  # it was trained


def test_a_built_in_loss_is_not_called(tmp_path, monkeypatch):
    from latentforge.engine import loss_weights

    monkeypatch.setattr(loss_weights, "probe", lambda steps: pytest.fail("called"))
    Forge().train("ae", train={"epochs": 1}, run=tmp_path / "a", quiet=True)
