"""Resumes a run from a checkpoint, also in mid-epoch. The result is bit-identical to the result of
an uninterrupted run, unless `differences` reports a change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from latentforge._version import __version__
from latentforge.config.changes import check_changes, check_unedited
from latentforge.config.schema import RunConfig
from latentforge.data.loading import load_splits
from latentforge.data.splits import DataSplits
from latentforge.engine.build import build_trainee
from latentforge.engine.checkpoint_state import check_size, check_state, plugin_versions
from latentforge.engine.distributed import join_processes
from latentforge.engine.memory_format import is_channels_last
from latentforge.engine.step import Trainee
from latentforge.engine.training_state import restore_result
from latentforge.errors import MissingError, UsageError
from latentforge.io.redact import command_line
from latentforge.io.text import counted
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runs.data_description import read_spec
from latentforge.runs.folder import METRICS, lock_run, read_manifest, remove_temporary_files
from latentforge.runs.manifest import now
from latentforge.runs.rewind import check_no_link, select_checkpoint, truncate_logs
from latentforge.runtime import torchrun
from latentforge.runtime.device import select_training_device
from latentforge.runtime.threads import use_threads
from latentforge.seeding import callers_state_kept
from latentforge.workflows.load import load_roles
from latentforge.workflows.run import Run
from latentforge.workflows.session import TrainingSession

if TYPE_CHECKING:
    from latentforge.runtime.process_group import ProcessGroup

log = logging.getLogger("latentforge")


def resume(
    run: Run, config: RunConfig, *, checkpoint: str = "last", quiet: bool = False, data: Any = None
) -> Run:
    """Continue training in the run's own folder. `config` comes from `resolve_resumed_config`;
    `data` is the run's training data if it was given in Python."""
    run.writes = not torchrun.rank()
    with lock_run(run.path) if run.writes else nullcontext():
        run.manifest = read_manifest(run.path)  # as the last process left it
        check_no_link(run)
        check_changes(run.config, config)
        device = select_training_device(config.train.device)
        if config.roles:
            config = load_roles(config, device, stored=True)
        splits = load_same_data(run, config, data)
        if data is not None:
            run.in_memory = splits
        with use_threads(config.train.threads), callers_state_kept(device):
            store = CheckpointStore(run.path / "checkpoints")
            saved = find_checkpoint(run, store, checkpoint)
            if saved:
                check_state(saved)
                check_unfinished(run, config, saved)
                check_size(run.manifest, saved, config, splits.spec)
                check_unedited(config, saved.state, run.manifest["data"], run.path, saved.name)
            trainee = build_trainee(config, splits).to(device)
            message = "%s: the result is not bit-identical to that of an uninterrupted run"
            for difference in differences(saved, config, device, trainee) if saved else ():
                log.warning(message, difference)
            joined = torchrun.is_distributed()
            processes = join_processes(config, device, splits) if joined else None
            parts = (run, config, splits, trainee, device)
            with TrainingSession(*parts, quiet=quiet, saved=saved, processes=processes) as session:
                rewind(run, config, store, saved, device, processes)
                session.fit()
    return run


def rewind(
    run: Run,
    config: RunConfig,
    store: CheckpointStore,
    saved: Checkpoint | None,
    device: torch.device,
    processes: ProcessGroup | None,
) -> None:
    """Remove everything that the run stores about steps after `saved`. Until this call, a resume
    leaves the run unchanged."""
    if processes:
        processes.barrier("at the start")  # until all processes have read the checkpoint
    if run.writes:
        store.clean()
        remove_temporary_files(run.path)
        if saved:
            select_checkpoint(store, saved)
    resumed = {
        "at": now(),
        "step": saved.state["step"] if saved else 0,
        "checkpoint": saved.name if saved else None,
        "latentforge": __version__,
        "torch": torch.__version__,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": torchrun.world_size(),
        "command": command_line(),
    }
    history = [*run.manifest.get("resumed", []), resumed]
    run.update(status="running", error="", config=config.as_dict(), resumed=history)
    run.training = True
    if run.writes:
        truncate_logs(run, saved.state if saved else {})


def find_checkpoint(run: Run, store: CheckpointStore, which: str) -> Checkpoint | None:
    """Return the checkpoint to resume from, or None if the run was killed before it wrote one."""
    try:
        return store.load_newest() if which == "last" else store.load(which)
    except MissingError:
        if which != "last" or store.names():
            raise
        # the line of an epoch is written before its checkpoint, which may be missing
        epochs = len(run.history())
        if run.status == "done" or epochs > 1:
            raise MissingError(
                f"{run.path} has no checkpoint to resume from",
                details=[
                    f"{METRICS} contains {counted(epochs, 'epoch')}, which a resume does not repeat"
                ],
                hint="restore its checkpoints folder, or start a new run",
            ) from None
        return None


def load_same_data(run: Run, config: RunConfig, data: Any) -> DataSplits:
    """Load the images that the run was trained on. Raises UsageError if they have changed, because
    the result would belong to neither dataset."""
    if data is None and run.in_memory is not None:
        splits: DataSplits = run.in_memory
        return splits
    if data is None and config.dataset is None:
        raise UsageError(
            f"{run.path} was trained on data passed in Python", hint="Forge().resume(run, data=...)"
        )
    about = run.manifest["data"]
    splits = load_splits(config.dataset, config.data, data, read_spec(about).scaling)
    sizes = {name: len(images) for name, images in splits.splits.items()}
    if not splits.matches(about) or sizes != about["images"]:
        changed = [
            f"{counted(before, f'{name} image')} before, {sizes.get(name, 0)} now"
            for name, before in about["images"].items()
            if sizes.get(name) != before
        ]
        raise UsageError(
            f"the dataset {config.data_name} has changed since {run.path} was trained",
            details=changed or ["the number of images is the same, but their values differ"],
            hint="restore the original dataset, or start a new run",
        )
    return splits


def check_unfinished(run: Run, config: RunConfig, saved: Checkpoint) -> None:
    """Raise UsageError if a finished run has nothing left to train after the checkpoint."""
    if run.status != "done":
        return
    epochs = run.manifest["epochs"]
    if stopped := restore_result(saved).stopped:
        raise UsageError(
            f"{run.path} stopped early after epoch {epochs}: {stopped}", hint="train a new run"
        )
    if saved.state["step"] == run.manifest["steps"] and config.train.epochs <= epochs:
        raise UsageError(
            f"{run.path} has already been trained for {counted(epochs, 'epoch')}",
            hint=f"--epochs {2 * epochs}",
        )


def differences(
    saved: Checkpoint, config: RunConfig, device: torch.device, trainee: Trainee
) -> Iterator[str]:
    """Yield the changes since the checkpoint was written that can alter the result."""
    state, threads = saved.state, torch.get_num_threads()
    if state["threads"] != threads:
        advice = f"--set train.threads={state['threads']} restores the number"
        yield f"threads: {state['threads']} before, {threads} now ({advice})"
    if (processes := state.get("processes", 1)) != torchrun.world_size():
        yield f"processes: {processes} before, {torchrun.world_size()} now"
    if state["device"] != device.type:
        yield f"device: {state['device']} before, {device.type} now"
    if state["torch"] != torch.__version__:
        yield f"torch: {state['torch']} before, {torch.__version__} now"
    before_channels_last = state.get("ways", {}).get("channels_last", False)
    if is_channels_last(trainee) and not before_channels_last:
        yield "convolutions: contiguous before, channels-last now (train.channels_last)"
    for name, version in plugin_versions(config).items():
        older = state["plugins"].get(name.rpartition("/")[2], version)  # in older files
        if version != (before := state["plugins"].get(name, older)):
            yield f"plugin {name}: {before} before, {version} now"
