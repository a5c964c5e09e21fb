"""The program of each test process: one training per case, one after the other.

The tests also train in a single process, whose runs are the expected ones.
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
STEPS = 4  # per epoch
RANK = int(os.environ.get("RANK", "0"))

SMALL = {"encoder": [16], "decoder": [16], "latent_dim": 3}
PLAIN = {
    "ae": {"name": "ae", "model": {"hidden": [16], "latent_dim": 3}},
    "vae": {"name": "vae", "model": SMALL},
    "cvae": {"name": "cvae", "model": SMALL, "train": {"accumulate": 3}},
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
    "late": {  # a callback adds a parameter group in the second epoch
        "name": "ae",
        "model": {"hidden": [16], "latent_dim": 3},
        "callbacks": ["late"],
        "train": {"clip_grad_norm": 0.5, "schedule": {"name": "linear"}},
    },
    "vq-vae": {
        "name": "vq-vae",
        "model": {"entries": 8, "dim": 3, "width": 4},
        "train": {"accumulate": 2, "ema": 0.9},
    },
    "sigma": {
        "name": "vae",
        "model": SMALL,
        "loss": {"name": "elbo", "likelihood": "gaussian", "learn_sigma": True},
        "train": {"optimizer": "sgd", "lr": 1e-5, "optimizer_options": {"momentum": 0.9}},
    },
}
"""Cases whose metrics must equal those of one process."""
PER_PROCESS = {
    "cnn-classifier": {"name": "cnn-classifier", "model": {"channels": [2, 3, 4]}},  # dropout
    "conv-vae": {"name": "conv-vae", "model": {"channels": [4, 3], "hidden": 8, "latent_dim": 3}},
}
"""Cases whose dropout or batch norm is computed by each process for itself."""


@dataclasses.dataclass(frozen=True)
class StopConfig:
    """The step after which the last process alone stops the run, and how; 0: never."""

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


class Late:
    """Trains the decoder in a parameter group of its own, from the second epoch on."""

    def attach(self, engines):
        parameters, [group] = [*engines.model.decoder.parameters()], engines.optimizer.param_groups
        own = {*map(id, parameters)}
        group["params"] = [p for p in group["params"] if id(p) not in own]

        @engines.trainer.on(Events.EPOCH_STARTED)
        def start(engine):
            if engine.state.epoch == 2:
                engines.optimizer.add_param_group({"params": parameters, "lr": 0.01})


class Plugin:
    @hookimpl
    def latentforge_callbacks(self):
        yield CallbackSpec(name="late", summary="Late", build=lambda config: Late())
        yield CallbackSpec(name="stop", summary="Stops", build=Stop, config=StopConfig)


def data():
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (50, 16, 16), generator=draw, dtype=torch.uint8)
    y = torch.arange(50) % 3
    return {"train": (x, y), "validation": 0.2, "test": (x[:7], y[:7])}


def train(run, case, *, stop=None, **train):
    settings = {**PLAIN, **PER_PROCESS}[case]
    draft = start_draft(FORGE.registry, settings["name"], None, None)
    arrays = draft.add_data(data())
    draft.update("model", settings["model"], "model=")
    if "loss" in settings:
        draft.update("loss", settings["loss"], "loss=")
    if "data" in settings:
        draft.update("data", settings["data"], "data=")
    options = {"epochs": EPOCHS, "batch_size": BATCH, "log_every": 1, "threads": 1}
    draft.update("train", {**options, **settings.get("train", {}), **train}, "train=")
    callbacks = [*settings.get("callbacks", []), *([{"name": "stop", **stop}] if stop else [])]
    draft.enable_callbacks(callbacks)
    config = resolve(draft, FORGE.registry, in_memory=arrays is not None)
    return train_run(FORGE.registry, config, run=run, quiet=True, data=arrays)


FORGE = Forge([Plugin()])


def train_and_resume(folder: Path) -> None:
    """Runs stopped in the middle of an epoch by a signal to one process, then resumed."""
    for case in ("beta-vae", *PER_PROCESS):
        batch = {"batch_size": 10}
        train(folder / f"{case}-whole", case, **batch)
        run = folder / f"{case}-resumed"
        try:
            train(run, case, stop={"step": STEPS + 1, "how": "SIGTERM"}, **batch)
        except Terminated as stopped:
            record(folder, f"{case} {stopped.message.partition(';')[0]}")
        FORGE.resume(run, data=data(), quiet=True)


def record_refusal(folder: Path, run: Path, **options) -> None:
    try:
        train(run, "ae", **options)
    except LatentForgeError as error:
        record(folder, str(error))


def record(folder: Path, line: str) -> None:
    with (folder / f"messages-{RANK}").open("a") as file:
        file.write(line + "\n")


def record_draws(folder: Path) -> None:
    """Draws of a step's generator for the whole batch, and of the default generator."""
    from latentforge.engine.build import build_trainee
    from latentforge.engine.data_parallel import DataParallelStep
    from latentforge.runtime.process_group import ProcessGroup

    cpu, splits = torch.device("cpu"), FORGE.load_data("digits")
    config = resolve(start_draft(FORGE.registry, "ae", None, None), FORGE.registry)
    trainee = build_trainee(config, splits)
    steps = DataParallelStep(trainee, splits.split("train"), config, cpu, ProcessGroup(cpu))
    steps.noise.reseed(5)
    steps.load_batch(torch.arange(10))
    record(folder, json.dumps(["common", torch.rand(3, generator=steps.draw).tolist()]))
    record(folder, json.dumps(["own", torch.rand(3).tolist()]))


def record_threads(folder: Path) -> None:
    """The gloo threads that are left; one may abort the process with SIGABRT at exit."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    record(folder, json.dumps(["threads", [name for name in names if "gloo_runloop" in name]]))


def main() -> None:
    folder = Path(sys.argv[1])
    atexit.register(record_threads, folder)  # runs after handlers that are registered later
    for case in PLAIN:
        made = train(folder / case, case)
        record(folder, json.dumps([case, made.metrics, made.manifest["steps"]]))
    if os.environ["WORLD_SIZE"] != "2":
        record_refusal(folder, folder / "killed", stop={"step": STEPS + 1, "how": "SIGKILL"})
        return
    record_draws(folder)
    train(folder / "one-step", "conv-vae", batch_size=40, epochs=1)
    made = train(folder / "ended", "ae", stop={"step": STEPS + 2})
    record(folder, json.dumps(["ended", made.manifest["steps"], made.manifest["stopped"]]))
    train_and_resume(folder)
    record_refusal(folder, folder / "one", batch_size=1)
    record_refusal(folder, folder / "ae")
    record_refusal(folder, folder / "ruined", lr=1e20, optimizer="sgd")


if __name__ == "__main__":
    main()
