"""What each process of the tests does: many trainings one after the other, named by their way.

Also called in a process by itself, whose runs are what the others must come to.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch
from ignite.engine import Events

from latentforge import CallbackSpec, Forge, hookimpl
from latentforge.config.request import start_draft
from latentforge.config.resolve import resolve
from latentforge.errors import LatentForgeError, Terminated
from latentforge.workflows.train import train as train_run

EPOCHS = 3
BATCH = 13  # of 40 images: the last batch of an epoch has one
STEPS = 4  # an epoch
RANK = int(os.environ.get("RANK", "0"))

SMALL = {"encoder": [16], "decoder": [16], "latent_dim": 3}
PLAIN = {
    "ae": {"name": "ae", "model": {"hidden": [16], "latent_dim": 3}},
    "vae": {"name": "vae", "model": SMALL},
    "dynamic": {"name": "vae", "model": SMALL, "data": {"binarize": "dynamic"}},
    "streamed": {
        "name": "vae",
        "model": SMALL,
        "data": {"stream": "always", "workers": 1},
        "train": {"accumulate": 3},
    },
    "beta-vae": {
        "name": "vae",
        "model": SMALL,
        "loss": {"name": "beta-elbo", "schedule": "linear", "end_epoch": 2.5},
        "train": {
            "accumulate": 3,
            "clip_grad_norm": 0.5,
            "ema": 0.9,
            "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        },
    },
    "sigma": {
        "name": "vae",
        "model": SMALL,
        "loss": {"name": "elbo", "likelihood": "gaussian", "learn_sigma": True},
        "train": {"optimizer": "sgd", "lr": 1e-5, "optimizer_options": {"momentum": 0.9}},
    },
}
"""Whose every number must be that of one process."""
OWN = {
    "cnn-classifier": {"name": "cnn-classifier", "model": {"channels": [2, 3, 4]}},  # dropout
    "conv-vae": {"name": "conv-vae", "model": {"channels": [4, 3], "hidden": 8, "latent_dim": 3}},
}
"""Whose dropout or batch norm is that of each process."""


@dataclasses.dataclass(frozen=True)
class StopConfig:
    """After which step the last process alone asks for the end, and how; 0: never."""

    step: int = 0
    how: str = "terminate"


class Stop:
    def __init__(self, config: StopConfig) -> None:
        self.config = config

    def attach(self, engines):
        @engines.trainer.on(Events.ITERATION_COMPLETED)
        def after_step(engine):
            last = int(os.environ.get("WORLD_SIZE", "1")) - 1 == RANK
            if last and engine.state.iteration == self.config.step:
                if self.config.how == "terminate":
                    engine.terminate()
                else:
                    signal.raise_signal(getattr(signal, self.config.how))


class Plugin:
    @hookimpl
    def latentforge_callbacks(self):
        yield CallbackSpec(name="stop", summary="Stops", build=Stop, config=StopConfig)


def data():
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (50, 16, 16), generator=draw, dtype=torch.uint8)
    y = torch.arange(50) % 3
    return {"train": (x, y), "validation": 0.2, "test": (x[:7], y[:7])}


def train(run, way, *, stop=None, **train):
    told = {**PLAIN, **OWN}[way]
    draft = start_draft(FORGE.registry, told["name"], None, None)
    given = draft.add_data(data())
    draft.update("model", told["model"], "model=")
    if "loss" in told:
        draft.update("loss", told["loss"], "loss=")
    if "data" in told:
        draft.update("data", told["data"], "data=")
    options = {"epochs": EPOCHS, "batch_size": BATCH, "log_every": 1, "threads": 1}
    draft.update("train", {**options, **told.get("train", {}), **train}, "train=")
    if stop:
        draft.enable_callbacks([{"name": "stop", **stop}])
    config = resolve(draft, FORGE.registry, in_memory=given is not None)
    return train_run(FORGE.registry, config, run=run, quiet=True, data=given)


FORGE = Forge([Plugin()])


def trained_and_resumed(folder: Path) -> None:
    """Runs that were stopped in the middle of an epoch by a signal to one process, and went on."""
    for way in ("beta-vae", *OWN):
        batch = {"batch_size": 10}
        train(folder / f"{way}-whole", way, **batch)
        run = folder / f"{way}-resumed"
        try:
            train(run, way, stop={"step": STEPS + 1, "how": "SIGTERM"}, **batch)
        except Terminated as stopped:
            say(folder, f"{way} {stopped.message.partition(';')[0]}")
        FORGE.resume(run, data=data(), quiet=True)


def refused(folder: Path, run: Path, **options) -> None:
    try:
        train(run, "ae", **options)
    except LatentForgeError as error:
        say(folder, str(error))


def say(folder: Path, line: str) -> None:
    with (folder / f"said-{RANK}").open("a") as file:
        file.write(line + "\n")


def drawn(folder: Path) -> None:
    """What is drawn in a step for the whole batch, and by whoever does not know of it."""
    from latentforge.engine.build import build_trainee
    from latentforge.engine.data_parallel import DataParallelStep
    from latentforge.runtime.process_group import ProcessGroup

    cpu, splits = torch.device("cpu"), FORGE.load_data("digits")
    config = resolve(start_draft(FORGE.registry, "ae", None, None), FORGE.registry)
    trainee = build_trainee(config, splits)
    steps = DataParallelStep(trainee, splits.split("train"), config, cpu, ProcessGroup(cpu))
    steps.noise.reseed(5)
    steps.load_batch(torch.arange(10))
    say(folder, json.dumps(["common", torch.rand(3, generator=steps.draw).tolist()]))
    say(folder, json.dumps(["own", torch.rand(3).tolist()]))


def say_threads(folder: Path) -> None:
    """Those of gloo that are left; one may end the process with SIGABRT as it leaves."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    say(folder, json.dumps(["threads", [name for name in names if "gloo_runloop" in name]]))


def main() -> None:
    folder = Path(sys.argv[1])
    atexit.register(say_threads, folder)  # called after those that are registered later
    for way in PLAIN:
        made = train(folder / way, way)
        say(folder, json.dumps([way, made.metrics, made.manifest["steps"]]))
    if os.environ["WORLD_SIZE"] != "2":
        refused(folder, folder / "killed", stop={"step": STEPS + 1, "how": "SIGKILL"})
        return
    drawn(folder)
    train(folder / "one-step", "conv-vae", batch_size=40, epochs=1)
    made = train(folder / "ended", "ae", stop={"step": STEPS + 2})
    say(folder, json.dumps(["ended", made.manifest["steps"], made.manifest["stopped"]]))
    trained_and_resumed(folder)
    refused(folder, folder / "one", batch_size=1)
    refused(folder, folder / "ae")
    refused(folder, folder / "ruined", lr=1e20, optimizer="sgd")


if __name__ == "__main__":
    main()
