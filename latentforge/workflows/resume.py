"""Going on with a run from one of its checkpoints, as if it had never stopped."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from latentforge._version import __version__
from latentforge.config.changes import check_changes
from latentforge.config.resolve import resolve
from latentforge.config.schema import RunConfig
from latentforge.data.loading import load_splits
from latentforge.data.splits import DataSplits
from latentforge.engine.build import build_trainee
from latentforge.engine.checkpoint_state import check_state, versions
from latentforge.engine.distributed import share_steps
from latentforge.engine.memory_format import by_pixel
from latentforge.engine.result import outcome_of
from latentforge.engine.step import build_optimizer
from latentforge.errors import MissingError, RunFailed, UsageError
from latentforge.io.atomic import leads_out, parse_json, read_lines
from latentforge.io.paths import write_text
from latentforge.io.redact import command_line
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runs.compatibility import draft_of, is_in_memory
from latentforge.runs.folder import METRICS, locked, read_manifest, sweep
from latentforge.runs.manifest import now
from latentforge.runs.tensorboard import EVENTS
from latentforge.runtime import torchrun
from latentforge.runtime.device import training_device
from latentforge.runtime.threads import using_threads
from latentforge.seeding import callers_state_kept
from latentforge.workflows.load import check_size
from latentforge.workflows.run import Run
from latentforge.workflows.train import carry_out

log = logging.getLogger("latentforge")


def resume(
    run: Run, config: RunConfig, *, checkpoint: str = "last", quiet: bool = False, data: Any = None
) -> Run:
    """Train on, in the run's own folder; `config` is the run's with what was changed of it."""
    run.writes = not torchrun.rank()
    with locked(run.path) if run.writes else nullcontext():
        run.manifest = read_manifest(run.path)  # as whoever trained last has left it
        was = resolve(draft_of(run), run.registry, in_memory=is_in_memory(run))
        check_changes(was, config)
        go_on(run, config, checkpoint, quiet, data)
    return run


def go_on(run: Run, config: RunConfig, checkpoint: str, quiet: bool, data: Any) -> None:
    """What `resume` does once the run is locked and its settings are those of the run."""
    device = training_device(config.train.device)
    splits = same_data(run, config, data)
    with using_threads(config.train.threads), callers_state_kept(device):
        store = CheckpointStore(run.path / "checkpoints")
        saved = load(run, store, checkpoint)
        if saved:
            check_state(saved)
            check_unfinished(run, config, saved)
            check_size(run, saved, config, splits.spec)
        trainee = build_trainee(config, splits).to(device)
        for what in differences(saved, config, device, by_pixel(trainee)) if saved else ():
            log.warning("%s: the end is not bit for bit that of a run never stopped", what)
        build_optimizer(trainee, config.train)
        shared = share_steps(config, device)

        def begin() -> None:
            """Give up what is there of later steps; up to here the run is as it was."""
            if shared:
                shared.processes.barrier("at the start")  # all have read it
            if run.writes:
                store.clean()
                sweep(run.path)
                if saved:
                    publish(store, saved)
            run.update(
                status="running",
                error="",
                config=config.as_dict(),
                resumed=[*run.manifest.get("resumed", []), account(saved, device)],
            )
            run.training = True
            if run.writes:
                cut_back(run, saved.state if saved else {})

        carry_out(
            run,
            config,
            splits,
            trainee,
            device,
            quiet=quiet,
            saved=saved,
            begin=begin,
            shared=shared,
        )


def load(run: Run, store: CheckpointStore, which: str) -> Checkpoint | None:
    """The checkpoint to go on from; None where a run was killed before it wrote one."""
    try:
        return store.load_newest() if which == "last" else store.load(which)
    except MissingError:
        if which != "last" or store.names():
            raise
        # the line of an epoch is written before its checkpoint, which may not have come to be
        epochs = len(run.history())
        if run.status == "done" or epochs > 1:
            raise MissingError(
                f"{run.path} has no checkpoint left to go on from",
                details=[f"{METRICS} has {epochs} epochs, which are not trained anew"],
                remedy="its checkpoints folder back in its place, or a new run",
            ) from None
        return None


def publish(store: CheckpointStore, saved: Checkpoint) -> None:
    """Let LATEST name where the run goes on, and BEST the end of what was the best epoch by then:
    a kill may have come between the two."""
    store.publish("last", saved.name)
    step, epoch = saved.state["step"], saved.state["best_epoch"]
    best = [
        found.name
        for found in store.sound()
        if found.state.get("closed_step") == found.state.get("step") <= step
        and found.state.get("epoch") == epoch
    ]
    if best:
        store.publish("best", best[-1])
        return
    try:
        store.load("best")
    except MissingError:
        pass
    except RunFailed as damaged:
        log.warning("%s; the next best epoch is written anew", damaged.message)
        store.publish("best", None)


def same_data(run: Run, config: RunConfig, data: Any) -> DataSplits:
    """The images that the run was trained on. UsageError where they are others: what came of them
    would be the result of neither."""
    if data is None and run.in_memory is not None:
        kept: DataSplits = run.in_memory
        return kept
    if data is None and config.dataset is None:
        raise UsageError(
            f"{run.path} was trained on data that Python handed over",
            remedy="Forge().resume(run, data=...)",
        )
    splits = load_splits(config.dataset, config.data, data)
    about = run.manifest["data"]
    sizes = {name: len(images) for name, images in splits.splits.items()}
    if not splits.is_of(about) or sizes != about["images"]:
        raise UsageError(
            f"the dataset {config.data_name} has changed since {run.path} was trained",
            details=[
                f"{then} {name} images then, {sizes.get(name, 0)} now"
                for name, then in about["images"].items()
                if sizes.get(name) != then
            ]
            or ["as many images as then, and other values"],
            remedy="the data of then, or a new run",
        )
    return splits


def check_unfinished(run: Run, config: RunConfig, saved: Checkpoint) -> None:
    """UsageError where there is nothing left to train after a checkpoint, and a run says so."""
    if run.status != "done":
        return
    epochs = run.manifest["epochs"]
    if stopped := outcome_of(saved).stopped:
        raise UsageError(
            f"{run.path} ended by itself after epoch {epochs}: {stopped}", remedy="train a new run"
        )
    if saved.state["step"] == run.manifest["steps"] and config.train.epochs <= epochs:
        raise UsageError(
            f"{run.path} has been trained to its end, {epochs} epochs",
            remedy=f"--epochs {2 * epochs}",
        )


def differences(
    saved: Checkpoint, config: RunConfig, device: torch.device, pixelwise: bool
) -> Iterator[str]:
    """What is not as it was when the checkpoint was written, and moves the last bits; `pixelwise`:
    whether convolutions now lie so."""
    state, threads = saved.state, torch.get_num_threads()
    if state["threads"] != threads:
        advice = f"--set train.threads={state['threads']} keeps to them"
        yield f"threads: {state['threads']} before, {threads} now ({advice})"
    if (processes := state.get("processes", 1)) != torchrun.count():
        yield f"processes: {processes} before, {torchrun.count()} now"
    if state["device"] != device.type:
        yield f"on {state['device']} before, on {device.type} now"
    if state["torch"] != torch.__version__:
        yield f"torch {state['torch']} before, {torch.__version__} now"
    if pixelwise and not state.get("ways", {}).get("channels_last", False):
        yield "convolutions by channel before, by pixel now (train.channels_last)"
    for name, version in versions(config).items():
        older = state["plugins"].get(name.rpartition("/")[2], version)  # older ones: the name alone
        if version != (before := state["plugins"].get(name, older)):
            yield f"plugin {name} {before} before, {version} now"


def cut_back(run: Run, state: Mapping[str, Any]) -> None:
    """Leave of metrics.jsonl and of TensorBoard's files what was there at the checkpoint: the rest
    is made again. A line that a kill has left half written goes too."""
    path = run.path / METRICS
    closed, kept = state.get("closed_step", 0), state.get("events", {})
    try:
        lines = read_lines(path)
        found = [reached(line) for line in lines]
        if any(math.isnan(step) for step in found[:-1]):
            log.warning("%s: a damaged line in its middle is left out", path)
        if (there := sum(step <= closed for step in found)) < state.get("epoch", 0):
            log.warning(
                "%s has lines of %d epochs, and %d were trained", path, there, state["epoch"]
            )
        if lines:
            pairs = zip(lines, found, strict=True)
            write_text(path, "".join(line for line, step in pairs if step <= closed))
        for name in run.manifest.get("events", []):
            file = run.path / Path(name).name
            if not file.is_file() or not name.startswith(EVENTS) or leads_out(file, run.path):
                continue
            if name not in kept:
                file.unlink()
            elif file.stat().st_size > kept[name]:
                os.truncate(file, kept[name])
    except (OSError, ValueError) as error:
        raise RunFailed(
            f"{run.path} cannot go on: {error}", remedy="free or mend the disk"
        ) from None


def reached(line: str) -> float:
    """The step that a line of metrics is about; NaN where it is not whole."""
    try:
        return float(parse_json(line)["step"]) if line.endswith("\n") else math.nan
    except (ValueError, KeyError, TypeError):
        return math.nan


def account(saved: Checkpoint | None, device: torch.device) -> dict[str, Any]:
    """For run.json: when and from where a run went on."""
    return {
        "at": now(),
        "step": saved.state["step"] if saved else 0,
        "checkpoint": saved.name if saved else None,
        "latentforge": __version__,
        "torch": torch.__version__,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": torchrun.count(),
        "command": command_line(),
    }
