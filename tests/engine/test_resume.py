"""A run that was stopped and went on is, bit for bit, the run that was never stopped."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from latentforge import CallbackSpec, Forge, ModelSpec, hookimpl
from latentforge.checkpoint import CheckpointStore
from latentforge.errors import (
    Interrupted,
    Terminated,
)

EPOCHS, IMAGES, BATCH = 3, 50, 10
STEPS = 4  # an epoch: 40 images are left when 10 are held out


@dataclasses.dataclass(frozen=True)
class StopConfig:
    """Where the process is asked to end: after a step, or when an epoch is over (0: nowhere)."""

    step: int = 0
    epoch: int = 0
    how: str = "SIGTERM"


class Stop:
    """Asks as a scheduler does, and counts what it has seen, which a checkpoint keeps."""

    def __init__(self, config: StopConfig) -> None:
        self.config, self.seen = config, 0

    def attach(self, engines):
        number = getattr(signal, self.config.how)

        @engines.trainer.on(Events.ITERATION_COMPLETED)
        def after_step(engine):
            self.seen += 1
            if engine.state.iteration == self.config.step:
                signal.raise_signal(number)

        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def after_epoch(engine):
            engines.log("seen", float(self.seen))
            if engine.state.epoch == self.config.epoch:
                signal.raise_signal(number)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class ChannelsLast(nn.Module):
    """A classifier whose weights lie in memory in another order than their shape says."""

    def __init__(self, data) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3)
        )
        self.head = nn.Linear(6, len(data.classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.head(self.net(x).mean((2, 3)))

    def layers(self):
        return ["net.0"]


class Plugin:
    @hookimpl
    def latentforge_callbacks(self):
        yield CallbackSpec(name="stop", summary="Stops", build=Stop, config=StopConfig)

    @hookimpl
    def latentforge_models(self):
        yield ModelSpec(
            name="channels-last",
            summary="Stores its weights by pixel",
            build=lambda config, data: ChannelsLast(data),
            provides={"classify", "layers"},
            default_loss="cross-entropy",
        )


FORGE = Forge([Plugin()])
MODELS = {
    "ae": {"model": {"hidden": [16], "latent_dim": 3}},
    "vae": {"model": {"encoder": [16], "decoder": [16], "latent_dim": 3}},
    "beta-vae": {
        "model": {"encoder": [16], "decoder": [16], "latent_dim": 3},
        "loss": {"name": "beta-elbo", "schedule": "linear", "end_epoch": 2.5},
    },
    "conv-vae": {"model": {"channels": [4, 3], "hidden": 8, "latent_dim": 3}},
    "cnn-classifier": {"model": {"channels": [2, 3, 4]}},
    "channels-last": {},
}
WAYS = {
    "plain": {},
    "averaged": {
        "ema": 0.9,
        "clip_grad_norm": 0.5,
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "patience": 3,
        "optimizer_options": {"amsgrad": True},
    },
    "accumulated": {"accumulate": 3, "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
}
STOPS = {
    "first step": {"step": 1},
    "mid-epoch": {"step": STEPS + 2},
    "last step of an epoch": {"step": 2 * STEPS},
    "end of an epoch": {"epoch": 2},
    "after an epoch": {"step": STEPS + 1},
    "last step": {"step": EPOCHS * STEPS},
}


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (IMAGES, 16, 16), generator=draw, dtype=torch.uint8)
    y = torch.arange(IMAGES) % 3
    return {"train": (x, y), "validation": 0.2, "test": (x[:7], y[:7])}


def train(data, run, model, way, **stop):
    name = "vae" if model == "beta-vae" else model
    return FORGE.train(
        name,
        data=data,
        run=run,
        quiet=True,
        callbacks=[{"name": "stop", **stop}],
        **{k: v for k, v in MODELS[model].items() if k != "model"},
        model=MODELS[model].get("model"),
        train={
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "log_every": 3,
            "evaluate_every": 2,
            "threads": 1,
            **WAYS[way],
        },
    )


def resumed(run, data, **options):
    return FORGE.resume(run, data=data, quiet=True, **options)


def without_times(value):
    """A record without what a clock says, and without when this test stops a run."""
    if isinstance(value, dict):
        clocks = {"seconds", "images_per_second", "callbacks"}
        return {k: without_times(v) for k, v in value.items() if k not in clocks}
    return value


def seen(run):
    """All that a run leaves: tensors, state, lines of metrics, TensorBoard, and its manifest."""
    saved = CheckpointStore(Path(run) / "checkpoints").load()
    board = EventAccumulator(str(run)).Reload()
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    manifest = FORGE.open_run(run).manifest
    return SimpleNamespace(
        tensors={group: saved.tensors(group) for group in saved.groups},
        state={**without_times(saved.state), "seen": saved.state["callbacks"]},
        lines=[without_times(line) for line in lines],
        scalars={
            tag: [(event.step, event.value) for event in board.Scalars(tag)]
            for tag in board.Tags()["scalars"]
            if "images_per_second" not in tag
        },
        pictures={tag: [e.step for e in board.Images(tag)] for tag in board.Tags()["images"]},
        manifest={
            key: manifest[key]
            for key in ("status", "metrics", "per_dim", "best", "stopped", "findings", "protocol")
        }
        | {key: manifest[key] for key in ("epochs", "steps")},
    )


def assert_same(run, expected):
    found = seen(run)
    assert found.tensors.keys() == expected.tensors.keys()
    for group, tensors in expected.tensors.items():
        assert found.tensors[group].keys() == tensors.keys()
        for name, value in tensors.items():
            other = found.tensors[group][name]
            assert torch.equal(other, value), (group, name)
            assert other.dtype == value.dtype
    assert found.state == expected.state
    assert found.lines == expected.lines
    assert found.scalars == expected.scalars
    assert found.pictures == expected.pictures
    assert found.manifest == expected.manifest


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """What each kind of run leaves when nothing stops it."""
    kept = {}

    def of(model, way):
        if (model, way) not in kept:
            run = tmp_path_factory.mktemp("whole") / "run"
            train(data, run, model, way)
            kept[model, way] = seen(run)
        return kept[model, way]

    return of


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_stopped_ends_as_the_one_that_never_was(
    undisturbed, data, tmp_path, model, way, stop
):
    with pytest.raises(Terminated):
        train(data, tmp_path / "run", model, way, **STOPS[stop])
    manifest = FORGE.open_run(tmp_path / "run").manifest
    assert manifest["status"] == "interrupted"
    done = resumed(tmp_path / "run", data)
    assert_same(done.path, undisturbed(model, way))


def test_a_run_that_is_stopped_again_and_again_ends_the_same(undisturbed, data, tmp_path):
    """Each go is one step; the last one ends the run."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(data, run, "vae", "averaged", step=1, how="SIGINT")
    for step in range(2, EPOCHS * STEPS + 1):
        manifest = json.loads((run / "run.json").read_text())
        manifest["config"]["callbacks"][0]["step"] = step
        (run / "run.json").write_text(json.dumps(manifest))
        with pytest.raises(Interrupted):
            resumed(run, data)
    assert len(resumed(run, data).manifest["resumed"]) == EPOCHS * STEPS
    assert_same(run, undisturbed("vae", "averaged"))
