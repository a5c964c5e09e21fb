"""The step as one CUDA graph does what the step does, and says why where it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentforge import CallbackSpec, Forge, LossSpec, hookimpl
from latentforge.contracts import Terms
from latentforge.errors import RunFailed
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.workflows.run import Run

WAYS = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "averaged": {"ema": 0.9, "clip_grad_norm": 0.5, "schedule": {"name": "cosine"}},
    "accumulated": {"accumulate": 3, "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01, "schedule": {"name": "linear"}},
}
MODELS = ["ae", "vae", "conv-vae", "cnn-classifier", "mlp-classifier"]
EQUAL = "the whole step, verified against eager steps"


def weights(run: Run) -> dict[str, torch.Tensor]:
    saved = CheckpointStore(run.path / "checkpoints").load("last")
    return {
        f"{group}.{name}": tensor
        for group in saved.groups
        for name, tensor in saved.tensors(group).items()
    }


def apart(one: Run, other: Run) -> float:
    """The largest relative distance of two runs' tensors."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    pairs = [(a[name].double(), b[name].double()) for name in a]
    return max(float((one - other).norm() / (1e-12 + one.norm())) for one, other in pairs)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_a_captured_training_ends_where_one_step_by_step_does(train, model, way):
    captured = train(model, train={**WAYS[way], "cuda_graph": "on"})
    stepwise = train(model, train={**WAYS[way], "cuda_graph": "off"})
    assert captured.manifest["steps_made"]["cuda_graph"] == EQUAL
    assert stepwise.manifest["steps_made"]["cuda_graph"] == "no: train.cuda_graph is off"
    assert apart(captured, stepwise) <= 1e-6
    for split, figures in captured.metrics.items():
        for name, value in figures.items():
            assert value == pytest.approx(stepwise.metrics[split][name], rel=1e-5)


@pytest.mark.parametrize("way", ["plain", "bf16"])
@pytest.mark.parametrize("model", ["vae", "conv-vae"])
def test_a_captured_training_that_is_resumed_ends_with_the_same_bits(train, model, way):
    whole = train(model, train={**WAYS[way], "epochs": 2, "cuda_graph": "on"})
    halves = train(model, train={**WAYS[way], "epochs": 1, "cuda_graph": "on"})
    again = Forge().resume(halves, train={"epochs": 2}, quiet=True)
    a, b = weights(whole), weights(again)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_schedule_of_beta_is_followed_step_by_step_and_said(train):
    loss = {"name": "beta-elbo", "schedule": "linear", "end_epoch": 2.0}
    run = train("vae", loss=loss)
    assert "step.epoch" in run.manifest["steps_made"]["cuda_graph"]
    with pytest.raises(RunFailed, match=r"step\.epoch"):
        train("vae", loss=loss, train={"cuda_graph": "on"})


class Waiting(nn.Module):
    """A loss that waits for the device in each step, which no graph can hold."""

    def forward(self, model, batch, step):
        error = (model.decode(model.encode(batch.x).mode()) - batch.x).square().sum() / len(batch.x)
        return Terms({"error": error * (1.0 if error.item() > 0 else 0.5)})


class Growing(nn.Module):
    """A loss that counts its calls in Python, which a replay does not make."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, model, batch, step):
        self.calls += 1
        error = (model.decode(model.encode(batch.x).mode()) - batch.x).square().sum() / len(batch.x)
        return Terms({"error": error + (error.detach() * 0 + self.calls) * error})


class Hooking:
    def attach(self, engines):
        engines.model.register_forward_hook(lambda module, inputs, output: None)


class Plugin:
    @hookimpl
    def latentforge_losses(self):
        for name, build in (("waiting", Waiting), ("growing", Growing)):
            yield LossSpec(
                name=name,
                summary="odd",
                build=lambda config, data, build=build: build(),
                needs={"encode", "decode"},
            )

    @hookimpl
    def latentforge_callbacks(self):
        yield CallbackSpec(name="hooking", summary="odd", build=lambda config: Hooking())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"loss": "waiting"}, "captur"),
        ({"loss": "growing"}, "stores state between steps"),
        ({"callbacks": ["hooking"]}, "hook"),
        ({"train": {"optimizer": "rmsprop"}}, "fused"),
    ],
)
def test_what_cannot_be_captured_trains_step_by_step_and_says_why(train, given, reason):
    run = train("ae", Forge([Plugin()]), **given)
    assert run.status == "done"
    told = run.manifest["steps_made"]["cuda_graph"]
    assert told.startswith("no: ")
    assert reason in told
    again = train(
        "ae",
        Forge([Plugin()]),
        **{**given, "train": {**given.get("train", {}), "cuda_graph": "off"}},
    )
    if given.get("loss") != "growing":  # whose calls the test of the graph has counted too
        assert apart(run, again) <= 1e-6


def test_a_loss_that_becomes_infinite_ends_the_training_and_its_step_is_named(train):
    with pytest.raises(RunFailed, match=r"(the loss|the gradient) became .* (at|by) step \d+"):
        train("ae", train={"lr": 1e30, "cuda_graph": "on"})


def test_the_gpu_gives_the_figures_of_the_cpu(train):
    for model in ("ae", "vae", "cnn-classifier"):
        gpu, cpu = train(model), train(model, train={"device": "cpu"})
        loss = cpu.metrics["test"]["loss"]
        assert gpu.metrics["test"]["loss"] == pytest.approx(loss, rel=0.02)
