"""A non-finite loss: the weights stay unchanged and the message names the cause."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from latentforge import Forge, LossSpec
from latentforge.contracts import Batch, Step, Terms
from latentforge.engine.finite import FiniteGate
from latentforge.engine.optimizer import FUSED, OPTIMIZERS
from latentforge.engine.step import Trainee, train_step
from latentforge.errors import RunFailed
from latentforge.runs.checkpoint import CheckpointStore

from ..plugin import plugin_of
from .steps import runner_of

STEP = Step(3, 10, 8, 2)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2)

    def forward(self, x):
        return self.net(x)


class Squares(nn.Module):
    """The mean square times `factor`, which a test may set."""

    factor = 1.0

    def forward(self, model, batch, step):
        return Terms({"squares": model(batch.x).pow(2).mean() * self.factor})


def batch():
    draw = torch.Generator().manual_seed(1)
    return Batch(torch.randn(8, 3, generator=draw), None, torch.arange(8))


@pytest.mark.parametrize("bad", [math.nan, 1.0])
def test_a_group_that_is_not_fused_cannot_read_the_flag(bad):
    """A callback may add such a group. The step of the whole optimizer then waits for the loss."""
    first, second = Linear(), Linear()
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1, fused=True)
    optimizer.add_param_group({"params": [*second.parameters()], "fused": False})
    assert FiniteGate("cpu", wait=False).passes(torch.tensor(bad), optimizer) == math.isfinite(bad)


@pytest.mark.parametrize("wait", [True, False], ids=["cpu", "device"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("parts", [1, 2])
def test_weights_stay_unchanged_from_the_first_bad_step(name, bad, wait, parts):
    """On a device a fused optimizer reads a flag, so that no step waits for the loss."""
    trainee = Trainee(Linear(), Squares())
    options = {"fused": True} if name in FUSED["cpu"] else {}
    optimizer = OPTIMIZERS[name](trainee.parameters(), lr=0.1, **options)
    gate = FiniteGate("cpu", wait=wait)

    runner = runner_of(trainee, batch(), optimizer, gate, accumulate=parts)

    def step():
        train_step(runner, batch().index, STEP)
        return [value.detach().clone() for value in trainee.state_dict().values()]

    first, good = step(), step()
    assert not all(map(torch.equal, first, good))
    assert not gate.closed()
    trainee.loss.factor = bad
    assert all(map(torch.equal, step(), good))
    trainee.loss.factor = 1.0
    assert all(map(torch.equal, step(), good))  # later steps change nothing either
    assert gate.closed()


@pytest.mark.parametrize("wait", [True, False], ids=["cpu", "device"])
def test_a_non_finite_gradient_norm_changes_no_weights(wait):
    trainee = Trainee(Linear(), Squares())
    optimizer = torch.optim.Adam(trainee.parameters(), lr=0.1, fused=True)
    gate = FiniteGate("cpu", wait=wait)
    before = [value.clone() for value in trainee.state_dict().values()]
    trainee.model.net.weight.register_hook(lambda grad: grad * math.inf)
    runner = runner_of(trainee, batch(), optimizer, gate, clip_grad_norm=1.0)
    train_step(runner, batch().index, STEP)
    assert all(map(torch.equal, trainee.state_dict().values(), before))
    assert gate.closed()


class Burst(nn.Module):
    """A reconstruction loss that makes itself or its gradient non-finite in step 5 (from 0)."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, model, batch, step):
        loss = (model.decode(model.encode(batch.x).mode()) - batch.x).pow(2).sum(1).mean()
        if self.where == "loss" and step.index == 5:
            loss = loss * 1e38 * 1e38
        if self.where == "gradient" and step.index == 5:
            loss = loss + (model.decode(model.encode(batch.x).mode()) * 0).abs().sqrt().sum()
        return Terms({"squares": loss, "idle": loss * math.nan}, {"idle": 0.0})


def train_until_failure(tmp_path, where, **train):
    burst = LossSpec(name="burst", summary="Bursts", build=lambda c, d: Burst(where))
    x = torch.rand(40, 12, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RunFailed) as error:
        Forge([plugin_of(burst)]).train(
            "ae",
            data={"train": x, "test": x[:5]},
            loss="burst",
            model={"hidden": [8], "latent_dim": 2},
            train={"batch_size": 10, "epochs": 3, "checkpoint_every": 1, "threads": 1, **train},
            run=tmp_path / "run",
            quiet=True,
        )
    return error.value, Forge().open_run(tmp_path / "run")


@pytest.mark.parametrize("log_every", [1, 50])
def test_the_message_names_the_first_bad_step_term_and_gradient(tmp_path, log_every):
    error, run = train_until_failure(tmp_path, "loss", log_every=log_every)
    assert error.message == "the loss became inf at step 6 (its term 'squares')"
    assert error.details[0].startswith("the largest gradient of this step: nan, of model.")
    assert run.status == "failed"
    store = CheckpointStore(run.path / "checkpoints")
    assert store.load().state["step"] == 5
    assert all(bool(t.isfinite().all()) for t in store.load().tensors("model").values())


def test_with_clipping_a_nan_gradient_ends_the_run_at_its_step(tmp_path):
    error, run = train_until_failure(tmp_path, "gradient", clip_grad_norm=1.0)
    assert "the gradient became NaN or infinite by step 6" in error.message
    assert "nan, of model." in error.details[0]
    assert CheckpointStore(run.path / "checkpoints").load().state["step"] == 5


def test_weights_made_nan_by_a_gradient_are_never_saved(tmp_path):
    error, run = train_until_failure(tmp_path, "gradient")
    assert "the weights became NaN or infinite by step 6 (model." in error.message
    assert CheckpointStore(run.path / "checkpoints").load().state["step"] == 5


def test_the_message_separates_bad_weights_from_a_bad_loss(tmp_path):
    error, _ = train_until_failure(tmp_path, "gradient", checkpoint_every=0, epochs=1, batch_size=6)
    assert error.message.startswith("the loss became nan at step 7")
    assert "was not finite before this step: the previous step broke it" in error.details[0]
