"""A stopped and resumed run is bit-identical to an uninterrupted one."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

import latentforge
from latentforge import CallbackSpec, Forge, ModelSpec
from latentforge.engine.optimizer import OPTIMIZERS
from latentforge.errors import (
    ConfigError,
    Interrupted,
    MissingError,
    PluginError,
    RunFailed,
    Terminated,
    UsageError,
)
from latentforge.runs.checkpoint import CheckpointStore

from ..params import slow_except
from ..plugin import plugin_of
from .stop import STOP

EPOCHS, IMAGES, BATCH = 3, 50, 10
STEPS = 4  # per epoch: 40 images remain after 10 are held out


class ChannelsLast(nn.Module):
    """A classifier whose weights are in channels-last memory format."""

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


CHANNELS_LAST = ModelSpec(
    name="channels-last",
    summary="Stores its weights channels last",
    build=lambda config, data: ChannelsLast(data),
    provides={"classify", "layers"},
    default_loss="cross-entropy",
)
FORGE = Forge([plugin_of(STOP, CHANNELS_LAST)])
MODELS = {
    "ae": {"model": {"hidden": [16], "latent_dim": 3}},
    "vae": {"model": {"encoder": [16], "decoder": [16], "latent_dim": 3}},
    "beta-vae": {
        "model": {"encoder": [16], "decoder": [16], "latent_dim": 3},
        "loss": {"name": "beta-elbo", "schedule": "linear", "end_epoch": 2.5},
    },
    "conv-vae": {"model": {"channels": [4, 3], "hidden": 8, "latent_dim": 3}},
    "vq-vae": {"model": {"entries": 8, "dim": 3, "width": 4}},
    "cnn-classifier": {"model": {"channels": [2, 3, 4]}},
    "channels-last": {},
}
VARIANTS = {
    "plain": {},
    "ema": {
        "ema": 0.9,
        "clip_grad_norm": 0.5,
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "patience": 3,
        "optimizer_options": {"amsgrad": True},
    },
    "bf16": {"precision": "bf16"},
    "channels last off": {"channels_last": "off"},
    "accumulated": {"accumulate": 3, "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
}
STOPS = {
    "first step": {"step": 1},
    "mid-epoch": {"step": STEPS + 2},
    "last step of an epoch": {"step": 2 * STEPS},
    "end of an epoch": {"epoch": 1},
    "after an epoch": {"step": STEPS + 1},
    "last step": {"step": EPOCHS * STEPS},
}

# Without `slow`: for a vae, every stop with `ema` and every variant in the middle of an epoch; for
# each other model, one case.
MATRIX = slow_except(
    {
        *(("vae", "ema", stop) for stop in STOPS),
        *(("vae", variant, "mid-epoch") for variant in VARIANTS),
        *((model, "plain", "mid-epoch") for model in MODELS),
    },
    itertools.product(MODELS, VARIANTS, STOPS),
)


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (IMAGES, 16, 16), generator=draw, dtype=torch.uint8)
    y = torch.arange(IMAGES) % 3
    return {"train": (x, y), "validation": 0.2, "test": (x[:7], y[:7])}


def train(data, run, model, variant, options=None, *, every=0, **stop):
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
            "checkpoint_every": every,
            **VARIANTS[variant],
            **(options or {}),
        },
    )


def train_until(data, run, *arguments, **stop):
    """Trains until the signal at a step or after an epoch."""
    with pytest.raises(Terminated):
        train(data, run, *arguments, **stop)


def set_stop(run, step=0):
    """Sets the next stop of a stored run: at 0, a repeated step does not stop it again."""
    manifest = json.loads((run / "run.json").read_text())
    manifest["config"]["callbacks"][0] |= {"step": step, "epoch": 0}
    (run / "run.json").write_text(json.dumps(manifest))


def resume(run, data, **options):
    return FORGE.resume(run, data=data, quiet=True, **options)


def assert_refused(run, data, error, message, **options):
    """Resume raises the error and changes no file."""
    before = files(run.parent)
    with pytest.raises(error, match=re.escape(message)):
        resume(run, data, **options)
    assert files(run.parent) == before


def store_changed(run, state, tensors=None):
    """Stores a checkpoint like the last one, but for these values of its state and optimizer."""
    store = CheckpointStore(run / "checkpoints")
    saved = store.load()
    groups = {group: saved.tensors(group) for group in saved.groups}
    groups["optimizer"] |= tensors or {}
    store.save("other", groups, {**saved.state, **state})


def files(folder):
    """Every file but the lock, with its bytes."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in found}


def drop_times(value):
    """A record without times, file names and the step at which a test stops the run."""
    if isinstance(value, dict):
        clocks = {"seconds", "images_per_second", "callbacks", "events"}
        return {k: drop_times(v) for k, v in value.items() if k not in clocks}
    return value


def read_run(run):
    """Everything a run leaves: tensors, state, metrics, TensorBoard events and manifest."""
    saved = CheckpointStore(Path(run) / "checkpoints").load()
    board = EventAccumulator(str(run)).Reload()
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    manifest = FORGE.open_run(run).manifest
    return SimpleNamespace(
        tensors={group: saved.tensors(group) for group in saved.groups},
        state={**drop_times(saved.state), "seen": saved.state["callbacks"]},
        lines=[drop_times(line) for line in lines],
        scalars={
            tag: [(event.step, event.value) for event in board.Scalars(tag)]
            for tag in board.Tags()["scalars"]
            if "images_per_second" not in tag
        },
        pictures={tag: [e.step for e in board.Images(tag)] for tag in board.Tags()["images"]},
        events=sorted(
            (value.tag, event.step)
            for file in Path(run).glob("events.*")
            for event in EventFileLoader(str(file)).Load()
            for value in event.summary.value
        ),
        manifest={
            key: manifest[key]
            for key in ("status", "metrics", "per_dim", "best", "stopped", "findings", "protocol")
        }
        | {key: manifest[key] for key in ("epochs", "steps")},
    )


def assert_same(run, expected):
    found = read_run(run)
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
    assert found.events == expected.events
    assert found.manifest == expected.manifest


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """The results of each kind of run when nothing stops it."""
    stored = {}

    def of(model, variant):
        if (model, variant) not in stored:
            run = tmp_path_factory.mktemp("whole") / "run"
            train(data, run, model, variant)
            stored[model, variant] = read_run(run)
        return stored[model, variant]

    return of


@pytest.mark.parametrize(("model", "variant", "stop"), MATRIX)
def test_a_resumed_run_equals_an_uninterrupted_one(
    uninterrupted, data, tmp_path, model, variant, stop
):
    train_until(data, tmp_path / "run", model, variant, **STOPS[stop])
    manifest = FORGE.open_run(tmp_path / "run").manifest
    assert manifest["status"] == "interrupted"
    done = resume(tmp_path / "run", data)
    assert_same(done.path, uninterrupted(model, variant))


def test_a_run_stopped_at_every_step_gives_the_same_bits(uninterrupted, data, tmp_path):
    """Each resume runs one step; the last one ends the run."""
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(data, run, "vae", "ema", step=1, how="SIGINT")
    for step in range(2, EPOCHS * STEPS + 1):
        set_stop(run, step)
        with pytest.raises(Interrupted):
            resume(run, data)
    assert len(resume(run, data).manifest["resumed"]) == EPOCHS * STEPS
    assert_same(run, uninterrupted("vae", "ema"))


# ---------------------------------------------------------------- which checkpoint


STEPS_OF_KILL = slow_except([2, STEPS + 3], [2, STEPS, STEPS + 3, EPOCHS * STEPS - 1])


@pytest.mark.parametrize("step", STEPS_OF_KILL)
def test_resume_after_a_late_kill_leaves_no_duplicates(data, tmp_path, step):
    """The events file is longer than the checkpoint records."""
    run = tmp_path / "run"
    copy = {"step": step, "how": "SIGUSR1"}
    stored = tmp_path / "stored"
    before = signal.signal(signal.SIGUSR1, lambda *_: shutil.copytree(run / "checkpoints", stored))
    try:
        train(data, run, "vae", "ema", every=1, **copy)
    finally:
        signal.signal(signal.SIGUSR1, before)
    expected = read_run(run)
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(stored, run / "checkpoints")
    FORGE.open_run(run).update(status="running", epochs=0, steps=0, metrics={})
    set_stop(run)
    resume(run, data)
    assert_same(run, expected)


@pytest.mark.parametrize("step", STEPS_OF_KILL)
def test_resume_repeats_the_steps_after_the_checkpoint(data, tmp_path, step):
    """As after a kill: metrics and events are ahead of the checkpoint to resume from."""
    train(data, tmp_path / "whole", "vae", "ema", every=1)
    expected = read_run(tmp_path / "whole")
    train_until(data, tmp_path / "run", "vae", "ema", every=1, step=step)
    shutil.copytree(tmp_path / "run/checkpoints", tmp_path / "stored")
    resume(tmp_path / "run", data)
    shutil.rmtree(tmp_path / "run/checkpoints")
    shutil.copytree(tmp_path / "stored", tmp_path / "run/checkpoints")
    FORGE.open_run(tmp_path / "run").update(status="running", epochs=0, steps=0, metrics={})
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 9, "st')  # a line that a kill has left half written
    resume(tmp_path / "run", data)
    assert_same(tmp_path / "run", expected)


def test_a_run_killed_after_its_last_checkpoint_gets_its_metrics(uninterrupted, data, tmp_path):
    train(data, tmp_path / "run", "vae", "plain")
    FORGE.open_run(tmp_path / "run").update(
        status="running", epochs=0, steps=0, metrics={}, per_dim={}, best={}, protocol={}
    )
    resume(tmp_path / "run", data)
    assert_same(tmp_path / "run", uninterrupted("vae", "plain"))


@pytest.mark.parametrize(("step", "status"), [(1, "interrupted"), (STEPS + 1, "failed")])
def test_a_run_without_a_checkpoint_restarts_at_step_0(uninterrupted, data, tmp_path, step, status):
    """Killed before the first checkpoint, or failed on a full disk after a metrics line."""
    run = tmp_path / "run"
    train_until(data, run, "vae", "plain", step=step)
    shutil.rmtree(run / "checkpoints")
    set_stop(run)
    FORGE.open_run(run).update(status=status)
    assert resume(run, data).manifest["resumed"][0]["step"] == 0
    assert_same(run, uninterrupted("vae", "plain"))


def test_resume_falls_back_to_the_previous_checkpoint(uninterrupted, data, tmp_path, caplog):
    train_until(data, tmp_path / "run", "vae", "plain", step=2 * STEPS + 2)
    checkpoints = tmp_path / "run/checkpoints"
    latest = checkpoints / (checkpoints / "LATEST").read_text().split()[0]
    (latest / "optimizer.safetensors").write_bytes(b"")
    set_stop(tmp_path / "run")
    made = resume(tmp_path / "run", data)
    assert "optimizer.safetensors has 0 bytes" in caplog.text
    assert made.manifest["resumed"][0]["step"] == 2 * STEPS
    assert_same(tmp_path / "run", uninterrupted("vae", "plain"))


@pytest.mark.parametrize("what", ["damaged", "gone", "behind"])
def test_resume_restores_the_best_pointer(data, tmp_path, what):
    """No later epoch becomes the best, so resume must restore the pointer."""
    never = {"min_delta": 1e6}
    train_until(data, tmp_path / "run", "vae", "plain", never, step=STEPS + 1)
    store = CheckpointStore(tmp_path / "run/checkpoints")
    pointer = store.folder / "BEST"
    first = pointer.read_text()
    if what == "behind":
        store.publish("best", store.load().name)
    else:
        pointer.write_text("\0") if what == "damaged" else pointer.unlink()
    resume(tmp_path / "run", data)
    assert pointer.read_text() == first
    assert store.load("best").state["epoch"] == 1


def test_a_damaged_pointer_to_a_deleted_checkpoint_is_logged(data, tmp_path, caplog):
    train_until(data, tmp_path / "run", "vae", "plain", step=STEPS + 1)
    store = CheckpointStore(tmp_path / "run/checkpoints")
    shutil.rmtree(store.load("best").path)
    (store.folder / "BEST").write_text("\0")
    made = resume(tmp_path / "run", data)
    assert "BEST is damaged" in caplog.text
    assert store.load("best").state["epoch"] == made.manifest["best"]["epoch"]


@pytest.mark.parametrize("step", [STEPS, 2 * STEPS + 1, 3 * STEPS])
def test_resume_continues_best_score_and_patience(data, tmp_path, step):
    options = {"epochs": 9, "patience": 3, "min_delta": 1e6}  # no later epoch improves this much
    train(data, tmp_path / "whole", "ae", "plain", options)
    expected = read_run(tmp_path / "whole")
    assert expected.manifest["stopped"]
    assert expected.state["waited"] == 3
    assert step < expected.manifest["steps"]
    train_until(data, tmp_path / "run", "ae", "plain", options, step=step)
    resume(tmp_path / "run", data)
    assert_same(tmp_path / "run", expected)
    with pytest.raises(UsageError, match="stopped early after epoch"):
        resume(tmp_path / "run", data)


@pytest.mark.parametrize("how", ["killed", "signal during evaluation"])
def test_a_run_ended_by_patience_trains_no_further(data, tmp_path, how):
    """Neither after a kill before run.json is updated nor after a signal in the last evaluation."""
    options = {"epochs": 9, "patience": 3, "min_delta": 1e6}
    train(data, tmp_path / "whole", "ae", "plain", options)
    expected = read_run(tmp_path / "whole")
    if how == "killed":
        train(data, tmp_path / "run", "ae", "plain", options)
        FORGE.open_run(tmp_path / "run").update(status="running", stopped="", epochs=0, steps=0)
    else:
        train_until(data, tmp_path / "run", "ae", "plain", options, epoch=4)
    resume(tmp_path / "run", data)
    assert_same(tmp_path / "run", expected)


def test_a_run_ended_by_a_callback_trains_no_further(data, tmp_path):
    train(data, tmp_path / "run", "ae", "plain", step=STEPS + 2, how="END")
    assert FORGE.open_run(tmp_path / "run").status == "done"
    ended = "a callback ended the training"
    assert_refused(tmp_path / "run", data, UsageError, ended, train={"epochs": 9})
    FORGE.open_run(tmp_path / "run").update(status="running")  # killed before it was written
    assert resume(tmp_path / "run", data).manifest["steps"] == STEPS + 2


def test_resume_with_more_epochs_equals_a_longer_run(data, tmp_path):
    """Also with a schedule, which keeps its own length: past steps are unaffected."""
    variant = {"schedule": {"name": "cosine", "epochs": EPOCHS}, "ema": 0.9}
    train(data, tmp_path / "whole", "vae", "plain", {**variant, "epochs": EPOCHS + 2})
    train(data, tmp_path / "run", "vae", "plain", variant)
    with pytest.raises(UsageError, match="has already been trained for 3 epochs"):
        resume(tmp_path / "run", data)
    made = resume(tmp_path / "run", data, train={"epochs": EPOCHS + 2})
    assert made.config["train"]["epochs"] == EPOCHS + 2
    found, expected = read_run(tmp_path / "run"), read_run(tmp_path / "whole")
    for group, tensors in expected.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(found.tensors[group][name], value), (group, name)
    assert found.lines[-1] == expected.lines[-1]


def test_resume_from_an_older_checkpoint_resets_best(data, tmp_path):
    """The repeated epochs then set it again."""
    run = tmp_path / "run"
    train(data, run, "vae", "plain")
    store = CheckpointStore(run / "checkpoints")
    assert store.load("best").state["epoch"] == 3
    set_stop(run, 2 * STEPS + 1)
    with pytest.raises(Terminated):
        resume(run, data, checkpoint=f"step-{2 * STEPS:08d}")
    assert store.load("best").state["epoch"] == 2
    resume(run, data)
    assert store.load("best").state["epoch"] == 3


def test_a_copy_with_other_mtimes_resumes_from_the_latest_step(data, tmp_path):
    train_until(data, tmp_path / "run", "vae", "plain", step=2 * STEPS + 2)
    folder = tmp_path / "run/checkpoints"
    (folder / "LATEST").unlink()
    for i, path in enumerate(sorted(folder.glob("*/manifest.json"), reverse=True)):
        os.utime(path, (i, i))
    made = resume(tmp_path / "run", data)
    assert made.manifest["resumed"][0]["step"] == 2 * STEPS + 2


def test_a_resumed_run_keeps_the_data_that_was_passed(data, tmp_path):
    train_until(data, tmp_path / "run", "vae", "plain", step=STEPS + 2)
    made = resume(tmp_path / "run", data)
    whole = train(data, tmp_path / "whole", "vae", "plain")
    assert made.evaluate(protocol=2) == whole.evaluate(protocol=2)  # both without `data`


@pytest.mark.parametrize("optimizer", slow_except(["adam", "rmsprop", "sgd"], sorted(OPTIMIZERS)))
def test_every_optimizer_resumes_with_learned_loss_and_short_last_batch(data, tmp_path, optimizer):
    def go(run, **stop):
        options = {"optimizer": optimizer, "batch_size": 9, "accumulate": 2, "ema": 0.8}
        return FORGE.train(
            "vae",
            data=data,
            run=run,
            quiet=True,
            loss={"name": "elbo", "likelihood": "gaussian", "learn_sigma": True},
            model=MODELS["vae"]["model"],
            callbacks=[{"name": "stop", **stop}],
            train={"epochs": 3, "threads": 1, "evaluate_every": 1, **options},
        )

    go(tmp_path / "whole")
    with pytest.raises(Terminated):
        go(tmp_path / "run", step=7)
    resume(tmp_path / "run", data)
    assert_same(tmp_path / "run", read_run(tmp_path / "whole"))


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_with_one_step_per_epoch_resumes(data, tmp_path, step):
    train(data, tmp_path / "whole", "ae", "plain", {"batch_size": 64})
    train_until(data, tmp_path / "run", "ae", "plain", {"batch_size": 64}, step=step)
    resume(tmp_path / "run", data)
    assert_same(tmp_path / "run", read_run(tmp_path / "whole"))


def test_a_checkpoint_is_written_after_checkpoint_seconds(data, tmp_path):
    train_until(data, tmp_path / "run", "ae", "plain", {"checkpoint_seconds": 1e-6}, step=3)
    assert CheckpointStore(tmp_path / "run/checkpoints").names() == [
        "step-00000002",
        "step-00000003",
    ]


@pytest.mark.parametrize(
    ("event", "step"),
    [  # EPOCH_STARTED fires again for an epoch that resumes in the middle
        ("EPOCH_STARTED", STEPS),
        ("ITERATION_STARTED", STEPS),
        ("ITERATION_STARTED", STEPS + 2),
        ("EPOCH_COMPLETED", STEPS),
        ("EPOCH_COMPLETED", STEPS + 2),
    ],
)
def test_random_draws_of_a_callback_are_the_same_after_resume(data, tmp_path, event, step):
    class Shake:
        def attach(self, engines):
            @engines.trainer.on(Events.STARTED)
            def begin(engine):
                self.scale = 0.01

            @engines.trainer.on(Events[event])
            def shake(engine):
                for parameter in engines.model.parameters():
                    parameter.data.add_(self.scale * torch.randn_like(parameter))

    shake = CallbackSpec(name="shake", summary="Shakes", build=lambda config: Shake())
    forge = Forge([plugin_of(STOP, shake)])

    def go(run, **stop):
        callbacks = ["shake", {"name": "stop", **stop}]
        options = {"epochs": 3, "batch_size": BATCH, "threads": 1}
        return forge.train(
            "ae", data=data, run=run, quiet=True, callbacks=callbacks, train=options, **MODELS["ae"]
        )

    go(tmp_path / "whole")
    with pytest.raises(Terminated):
        go(tmp_path / "run", step=step)
    forge.resume(tmp_path / "run", data=data, quiet=True)
    assert_same(tmp_path / "run", read_run(tmp_path / "whole"))


# ---------------------------------------------------------------- refused or reported


def test_resume_refuses_a_finished_run_without_checkpoints(data, tmp_path):
    train(data, tmp_path / "run", "ae", "plain")
    shutil.rmtree(tmp_path / "run/checkpoints")
    assert_refused(tmp_path / "run", data, MissingError, "no checkpoint to resume from")


def test_missing_metrics_lines_are_logged(data, tmp_path, caplog):
    train_until(data, tmp_path / "run", "ae", "plain", step=2 * STEPS + 1)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run/metrics.jsonl").write_text("[" * 9**5 + "\n" + lines[1])
    resume(tmp_path / "run", data)
    assert "removed a damaged line before the last line" in caplog.text
    assert "has 1 epoch, but 2 were trained" in caplog.text


def test_a_callback_state_that_cannot_be_stored_fails_at_once(data, tmp_path):
    class Odd:
        def __init__(self, state):
            self.state = state

        def attach(self, engines):
            pass

        def state_dict(self):
            return self.state

    class WithoutLoad(Odd):
        load_state_dict = property()

    def failing(callback):
        odd = CallbackSpec(name="odd", summary="Odd", build=lambda config: callback)
        options = {"data": data, "run": tmp_path / "r", "quiet": True, "callbacks": ["odd"]}
        with pytest.raises(PluginError, match="the state of callback 'odd' failed") as error:
            Forge([plugin_of(odd)]).train("ae", **options)
        assert error.value.details == ("callback 'odd' of plugin Plugin",)
        shutil.rmtree(tmp_path / "r")
        return error.value.message

    assert "but no load_state_dict(state)" in failing(WithoutLoad({}))
    Odd.load_state_dict = lambda self, state: None
    assert "not JSON serializable" in failing(Odd({1, 2}))
    assert "not JSON compliant" in failing(Odd({"best": float("nan")}))


@pytest.mark.parametrize("name", ["latentforge/autoencoder", "autoencoder"])
def test_another_torch_or_plugin_version_is_logged(data, tmp_path, caplog, name):
    """Also for an older checkpoint that stored the plugin's name without its distribution."""
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    plugins = CheckpointStore(tmp_path / "run/checkpoints").load().state["plugins"]
    assert plugins.pop("latentforge/autoencoder") == latentforge.__version__
    plugins[name] = "0.0.1"
    store_changed(tmp_path / "run", {"torch": "2.0.0", "device": "cuda", "plugins": plugins})
    resume(tmp_path / "run", data)
    assert f"torch: 2.0.0 before, {torch.__version__} now" in caplog.text
    assert "device: cuda before, cpu now" in caplog.text
    assert "plugin latentforge/autoencoder: 0.0.1 before" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "3"),
        ("events", {"events.out.tfevents.1": "many"}),
        ("outcome", {"status": "done", "evil": 1}),
        ("history", []),
        ("threads", None),
    ],
)
def test_a_malformed_state_is_refused_and_no_file_changes(data, tmp_path, key, value):
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    store_changed(tmp_path / "run", {key: value})
    assert_refused(tmp_path / "run", data, RunFailed, f"has no valid '{key}'")


def test_model_state_that_is_not_a_tensor_is_refused(data, tmp_path):
    class Extra(ChannelsLast):
        def get_extra_state(self):
            return {"seen": 3}

        def set_extra_state(self, state):
            pass

    extra = replace(CHANNELS_LAST, name="extra", build=lambda config, data: Extra(data))
    with pytest.raises(RunFailed, match="_extra_state of the model or its loss is a dict"):
        Forge([plugin_of(extra)]).train("extra", data=data, run=tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.1}, "train.lr: 0.002 in the run, not 0.1"),
        ({"epochs": 2}, "train.epochs: it can be raised from 3, but not lowered to 2"),
        ({"schedule": {"name": "step"}}, 'train.schedule.name: "constant" in the run'),
        ({"device": "cuda:7"}, 'train.device: "auto" in the run'),
        ({"ema": 0.5, "seed": 4}, "train.seed"),
        ({"optimizer_options": {"amsgrad": True}}, "train.optimizer_options.amsgrad: null in the"),
    ],
)
def test_other_settings_are_refused_by_name_and_no_file_changes(data, tmp_path, change, message):
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    assert_refused(tmp_path / "run", data, ConfigError, message, train=change)


def test_settings_that_do_not_affect_the_result_may_change(uninterrupted, data, tmp_path):
    train_until(data, tmp_path / "run", "vae", "plain", step=2)
    made = resume(tmp_path / "run", data, train={"checkpoint_every": 2, "checkpoint_seconds": 9.0})
    assert made.config["train"]["checkpoint_every"] == 2
    expected, found = uninterrupted("vae", "plain"), read_run(tmp_path / "run")
    assert all(
        torch.equal(found.tensors[group][name], value)
        for group, tensors in expected.tensors.items()
        for name, value in tensors.items()
    )
    assert found.lines == expected.lines


def test_another_number_of_threads_is_logged(data, tmp_path, caplog):
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    resume(tmp_path / "run", data, train={"threads": 2})
    assert "threads: 1 before, 2 now (--set train.threads=1 restores the number)" in caplog.text


def test_other_data_is_refused(data, tmp_path):
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    x, y = data["train"]
    with pytest.raises(UsageError, match="has changed since"):
        resume(tmp_path / "run", {**data, "train": (255 - x, y)})
    with pytest.raises(UsageError, match="data passed in Python"):
        resume(tmp_path / "run", None)


def test_resume_refuses_a_run_that_another_process_trains(data, tmp_path):
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    holder = "import sys; from pathlib import Path; from latentforge.runs.folder import lock_run\n"
    holder += "with lock_run(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", holder, str(tmp_path / "run")]
    with subprocess.Popen(arguments, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another process is training the run"):
            resume(tmp_path / "run", data)
        process.kill()
    resume(tmp_path / "run", data)


def test_training_locks_the_run(data, tmp_path):
    class Try:
        def attach(self, engines):
            @engines.trainer.on(Events.ITERATION_COMPLETED(once=1))
            def other_process():
                code = "import sys; from pathlib import Path\n"
                code += "from latentforge.runs.folder import lock_run\n"
                code += "with lock_run(Path(sys.argv[1])): pass"
                run = [sys.executable, "-c", code, str(tmp_path / "run")]
                self.answer = subprocess.run(run, capture_output=True, text=True)

    attempt = Try()

    spec = CallbackSpec(name="try", summary="Locks", build=lambda config: attempt)
    options = {"data": data, "quiet": True, "train": {"epochs": 1}, "model": {"hidden": [4]}}
    Forge([plugin_of(spec)]).train("ae", run=tmp_path / "run", callbacks=["try"], **options)
    assert "another process is training the run" in attempt.answer.stderr


def test_a_checkpoint_of_an_older_version_stores_too_little(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[1] / "runs" / "stored" / "run-format-1", run)
    FORGE.open_run(run).update(status="interrupted")
    too_little = "stored too little to resume from"
    assert_refused(run, None, RunFailed, too_little, train={"epochs": 4})


def test_an_optimizer_state_that_does_not_fit_is_refused(data, tmp_path):
    train_until(data, tmp_path / "run", "ae", "plain", step=2)
    store_changed(tmp_path / "run", {}, {"99.exp_avg": torch.zeros(3)})
    assert_refused(tmp_path / "run", data, RunFailed, "does not fit this run")
