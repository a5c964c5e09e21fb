"""A step as one CUDA graph equals the eager step, or its run stores why there is no graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentforge import CallbackSpec, Forge, LossSpec, hookimpl
from latentforge.contracts import Terms
from latentforge.errors import RunFailed
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.workflows.run import Run

VARIANTS = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "ema": {"ema": 0.9, "clip_grad_norm": 0.5, "schedule": {"name": "cosine"}},
    "accumulated": {"accumulate": 3, "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01, "schedule": {"name": "linear"}},
}
MODELS = ["ae", "vae", "cvae", "conv-vae", "vq-vae", "fsq", "cnn-classifier", "mlp-classifier"]
EQUAL = "the whole step, verified against eager steps"


def weights(run: Run) -> dict[str, torch.Tensor]:
    saved = CheckpointStore(run.path / "checkpoints").load("last")
    return {
        f"{group}.{name}": tensor
        for group in saved.groups
        for name, tensor in saved.tensors(group).items()
    }


def relative_distance(one: Run, other: Run) -> float:
    """The largest relative distance between the tensors of two runs."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    pairs = [(a[name].double(), b[name].double()) for name in a]
    return max(float((one - other).norm() / (1e-12 + one.norm())) for one, other in pairs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model", MODELS)
def test_training_with_a_cuda_graph_matches_eager_training(train, model, variant):
    captured = train(model, train={**VARIANTS[variant], "cuda_graph": "on"})
    eager = train(model, train={**VARIANTS[variant], "cuda_graph": "off"})
    assert captured.manifest["steps_made"]["cuda_graph"] == EQUAL
    assert eager.manifest["steps_made"]["cuda_graph"] == "no: train.cuda_graph is off"
    assert relative_distance(captured, eager) <= 1e-6
    for split, metrics in captured.metrics.items():
        for name, value in metrics.items():
            assert value == pytest.approx(eager.metrics[split][name], rel=1e-5)


@pytest.mark.parametrize("variant", ["plain", "bf16"])
@pytest.mark.parametrize("model", ["vae", "conv-vae", "vq-vae"])
def test_resume_with_a_cuda_graph_gives_the_same_bits(train, model, variant):
    whole = train(model, train={**VARIANTS[variant], "epochs": 2, "cuda_graph": "on"})
    halves = train(model, train={**VARIANTS[variant], "epochs": 1, "cuda_graph": "on"})
    resumed = Forge().resume(halves, train={"epochs": 2}, quiet=True)
    a, b = weights(whole), weights(resumed)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_beta_schedule_trains_eagerly_with_a_stored_reason(train):
    loss = {"name": "beta-elbo", "schedule": "linear", "end_epoch": 2.0}
    run = train("vae", loss=loss)
    assert "step.epoch" in run.manifest["steps_made"]["cuda_graph"]
    with pytest.raises(RunFailed, match=r"step\.epoch"):
        train("vae", loss=loss, train={"cuda_graph": "on"})


class Waiting(nn.Module):
    """A loss that waits for the device in each step, which no graph can capture."""

    def forward(self, model, batch, step):
        error = (model.decode(model.encode(batch.x).mode()) - batch.x).square().sum() / len(batch.x)
        return Terms({"error": error * (1.0 if error.item() > 0 else 0.5)})


class Growing(nn.Module):
    """A loss that counts its calls in Python, which a replay does not execute."""

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


class Late:
    """Trains the decoder in a parameter group of its own, from the second epoch on."""

    def __init__(self, fused):
        self.fused = fused

    def attach(self, engines):
        parameters, [group] = [*engines.model.decoder.parameters()], engines.optimizer.param_groups
        own = {*map(id, parameters)}
        group["params"] = [p for p in group["params"] if id(p) not in own]

        @engines.trainer.on("EPOCH_STARTED")
        def start(engine):
            if engine.state.epoch == 2:
                options = {"params": parameters, "lr": 0.01, "fused": self.fused}
                engines.optimizer.add_param_group(options)


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
        yield CallbackSpec(name="late", summary="late", build=lambda config: Late(fused=True))
        yield CallbackSpec(name="unfused", summary="late", build=lambda config: Late(fused=False))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loss": "waiting"}, "captur"),
        ({"loss": "growing"}, "stores state between steps"),
        ({"callbacks": ["hooking"]}, "hook"),
        ({"train": {"optimizer": "rmsprop"}}, "fused"),
        ({"callbacks": ["unfused"]}, "parameter group 1, which a callback added"),
    ],
)
def test_a_step_that_cannot_be_captured_trains_eagerly_with_a_reason(train, options, reason):
    run = train("ae", Forge([Plugin()]), **options)
    assert run.status == "done"
    state = run.manifest["steps_made"]["cuda_graph"]
    assert state.startswith("no: ")
    assert reason in state
    eager = train(
        "ae",
        Forge([Plugin()]),
        **{**options, "train": {**options.get("train", {}), "cuda_graph": "off"}},
    )
    if options.get("loss") != "growing":  # whose counter includes the calls of the self-test
        assert relative_distance(run, eager) <= 1e-6


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_parameter_group_that_a_callback_adds_is_captured_again(train, schedule):
    options = {"epochs": 4, "schedule": {"name": schedule}}
    captured, eager = (
        train("ae", Forge([Plugin()]), callbacks=["late"], train={**options, "cuda_graph": mode})
        for mode in ("on", "off")
    )
    assert captured.manifest["steps_made"]["cuda_graph"] == EQUAL
    assert relative_distance(captured, eager) <= 1e-6


def test_a_non_finite_loss_ends_the_training_and_its_step_is_named(train):
    with pytest.raises(RunFailed, match=r"(the loss|the gradient) became .* (at|by) step \d+"):
        train("ae", train={"lr": 1e30, "cuda_graph": "on"})


def test_gpu_metrics_match_those_of_the_cpu(train):
    for model in ("ae", "vae", "cnn-classifier"):
        gpu, cpu = train(model), train(model, train={"device": "cpu"})
        loss = cpu.metrics["test"]["loss"]
        assert gpu.metrics["test"]["loss"] == pytest.approx(loss, rel=0.02)
