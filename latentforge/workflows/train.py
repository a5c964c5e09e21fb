"""One training from a checked configuration to a finished run folder."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentforge.config.schema import Component, RunConfig
from latentforge.config.selection import choose_measures
from latentforge.contracts import DataSpec
from latentforge.data.loading import load_splits
from latentforge.data.splits import DataSplits
from latentforge.engine.build import build_trainee, on_device
from latentforge.engine.diagnostics import at_the_start
from latentforge.engine.distributed import new_folder, share_steps, training_with_others
from latentforge.engine.result import Outcome, outcome_of
from latentforge.engine.step import Trainee, build_optimizer
from latentforge.engine.trainer import Trainer
from latentforge.errors import (
    Interrupted,
    LatentForgeError,
    RunFailed,
    Terminated,
    UsageError,
    one_line,
)
from latentforge.plugins.attribution import blame
from latentforge.plugins.registry import Registry
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runs.folder import locked, sweep
from latentforge.runs.manifest import RUNS, flat_options, manifest, now
from latentforge.runs.tensorboard import Board, NoBoard, flat_metrics
from latentforge.runtime import torchrun
from latentforge.runtime.device import training_device
from latentforge.runtime.threads import using_threads
from latentforge.seeding import callers_state_kept
from latentforge.workflows.run import Run

if TYPE_CHECKING:
    from latentforge.engine.data_parallel import SharedStep

TRAIN_PROTOCOL = "mean over the steps of the last epoch, in training mode, while the weights change"


def train(
    registry: Registry, config: RunConfig, *, run: Path | None, quiet: bool, data: Any
) -> Run:
    """Train, and leave a run folder whose status says how it ended.

    What can be wrong with the request (device, data, network, optimizer) is found before the folder
    is made.
    """
    device = training_device(config.train.device)
    splits = load_splits(config.dataset, config.data, data)
    if config.loss.entry.spec.labels and not splits.spec.classes:
        raise UsageError(f"loss {config.loss.name!r} needs labels; {config.data_name} has none")
    training_measures(registry, config, splits)
    if config.train.cuda_graph == "on" and device.type != "cuda":
        raise UsageError(
            f"train.cuda_graph is on, and {device} has no CUDA graphs",
            remedy="--set train.cuda_graph=auto",
        )
    with using_threads(config.train.threads), callers_state_kept(device):
        trainee = build_trainee(config, splits).to(device)
        facts = facts_of(trainee, config, splits.spec)
        build_optimizer(trainee, config.train)  # raises what the trainer's own would, too late
        shared = share_steps(config, device)
        folder = new_folder(run, RUNS, f"{config.model.name}-{config.data_name}", shared)
        made = Run(folder, {**manifest(config, splits, device), "facts": facts}, registry)
        made.writes = not torchrun.rank()
        if data is not None:
            made.in_memory = splits
        write_first(made)
        with locked(folder) if made.writes else nullcontext():
            if made.writes:
                sweep(folder)
            made.training = True
            carry_out(made, config, splits, trainee, device, quiet=quiet, shared=shared)
    return made


def write_first(made: Run) -> None:
    """Write run.json of a new run."""
    try:
        made.update()
    except RunFailed:
        with suppress(OSError):
            made.path.rmdir()  # no run, no folder
        raise


def carry_out(
    made: Run,
    config: RunConfig,
    splits: DataSplits,
    trainee: Trainee,
    device: torch.device,
    *,
    quiet: bool,
    saved: Checkpoint | None = None,
    begin: Callable[[], None] = lambda: None,
    shared: SharedStep | None = None,
) -> None:
    """Train into a run's folder, from its start or from the checkpoint `saved`. `begin` is called
    when nothing but the training itself can fail any more."""
    with ready(made, config, splits, trainee, device, quiet, saved, begin, shared) as trainer:
        trainer.fit()


@contextmanager
def ready(
    made: Run,
    config: RunConfig,
    splits: DataSplits,
    trainee: Trainee,
    device: torch.device,
    quiet: bool,
    saved: Checkpoint | None = None,
    begin: Callable[[], None] = lambda: None,
    shared: SharedStep | None = None,
    trainer_of: type[Trainer] = Trainer,
) -> Iterator[Trainer]:
    """A trainer that is ready to train into a run's folder; how that ends is written there."""
    monitor, measures = training_measures(made.registry, config, splits)
    outcome = outcome_of(saved) if saved else Outcome()

    def record(line: dict[str, Any]) -> None:
        """Of each epoch; run.json has it too, for whoever looks while it runs or after a kill."""
        made.record(line)
        made.update(**told(outcome))

    written = saved.state.get("events") if saved else None
    board_of = Board if made.writes else NoBoard
    with (
        training_with_others(made.path, shared),
        recorded(made, outcome),
        closing(board_of(made.path, written)) as board,
    ):
        if not saved:
            notify(made, "run_started")
        if shared:
            shared.processes.equalise(trainee)
        trainer = trainer_of(
            trainee,
            on_device(splits, device),
            config,
            device=device,
            measures=measures,
            monitor=monitor,
            store=CheckpointStore(made.path / "checkpoints"),
            board=board,
            record=record,
            stream=None if quiet or not made.writes else sys.stderr,
            outcome=outcome,
            shared=shared,
        )
        if saved:
            trainer.resume(saved)
        begin()
        if saved:  # till here it could not go on, and was as it had been
            notify(made, "run_started")
        made.update(events=[*board.written()], steps_made=trainer.stepper.ways())
        if saved:
            board.restart_after(outcome.steps)
            trainer.progress.note(f"goes on after step {outcome.steps} ({saved.name})")
            if 0 < (length := config.train.schedule.epochs) < config.train.epochs:
                trainer.progress.note(f"the schedule ends with epoch {length}: lr then stays")
        else:
            greet(trainer, made.manifest["facts"])
        for note in shared.notes(trainee, config.train.batch_size) if shared else ():
            trainer.progress.warn(note)
        yield trainer
        made.manifest["steps_made"] = trainer.stepper.ways()
        made.manifest["protocol"] = {"train": TRAIN_PROTOCOL, **trainer.evaluator.protocol}
        if outcome.status == "done":  # one run without test figures would hide everyone's
            board.hparams(flat_options(made.config), flat_metrics(outcome.metrics))


def greet(trainer: Trainer, facts: dict[str, Any]) -> None:
    """Say what the loss and the first look at the data have to say."""
    for line in fact_lines(facts):
        trainer.progress.note(line)
    if told := trainer.stepper.told():
        trainer.progress.note(f"steps: {', '.join(told)}")
    trainer.outcome.findings += at_the_start(
        trainer.images,
        getattr(trainer.trainee.loss, "likelihood", None),
        kl="kl" in trainer.config.model.entry.spec.provides,
    )
    for finding in trainer.outcome.findings:
        trainer.progress.warn(str(finding))


def training_measures(
    registry: Registry, config: RunConfig, splits: DataSplits
) -> tuple[Component, list[Component]]:
    """The measure that `train.monitor` names, and with it the default ones that fit."""
    train, classes = config.train, splits.spec.classes
    registry.get("measures", "loss")  # notices ruined weights
    if (train.monitor != "loss" or train.patience) and "validation" not in splits.splits:
        raise UsageError(
            "train.monitor and train.patience go by a validation split, and there is none",
            remedy="--set data.validation=0.1",
        )
    measures = choose_measures(registry, config, classes)
    [monitor] = choose_measures(registry, config, classes, [train.monitor])
    measures = [monitor if measure.entry is monitor.entry else measure for measure in measures]
    return monitor, measures if monitor in measures else [*measures, monitor]


def facts_of(trainee: Trainee, config: RunConfig, spec: DataSpec) -> dict[str, Any]:
    """What the loss has to say about itself at the start, as JSON values."""
    tell = getattr(trainee.loss, "facts", None)
    if tell is None:
        return {}
    with blame(f"the facts of loss {config.loss.name!r}", config.loss.entry):
        facts: dict[str, Any] = json.loads(json.dumps(dict(tell(trainee.model, spec))))
    return facts


def fact_lines(facts: dict[str, Any]) -> list[str]:
    """A line for each fact; those that differ in what stands in brackets alone share one."""
    found: dict[str, list[str]] = {}
    for name, value in facts.items():
        what, _, how = name.removesuffix(")").partition(" (")
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        found.setdefault(what, []).append(f"{shown} ({how})" if how else shown)
    return [f"{what}: {', '.join(values)}" for what, values in found.items()]


@contextmanager
def recorded(run: Run, outcome: Outcome) -> Iterator[None]:
    """Write how a training ended into its run, whichever way that was."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.training:
            raise
        outcome.status = "interrupted"
    except BaseException as error:
        outcome.status = "failed"
        ours = isinstance(error, LatentForgeError)
        if run.training:  # else it could not go on, and is as it was
            with suppress(RunFailed):  # on a full disk this fails too, and the first error counts
                finish(run, outcome, error=str(error) if ours else one_line(error))
            notify(run, "run_failed", error=error)
        if isinstance(error, LatentForgeError):
            error.result = run.summary()
        raise
    finish(run, outcome)
    if outcome.status == "interrupted":
        kept = (run.path / "checkpoints" / "LATEST").exists()
        keeps = f"; {run.path} keeps its last checkpoint" if kept else ""
        kind = Terminated if outcome.signal == signal.SIGTERM else Interrupted
        what = f"{kind.__name__.lower()} at step {outcome.steps}{keeps}"
        command = torchrun.again(f"latentforge train --resume {run.path}")
        stopped = kind(what, remedy=command if kept else "")
        stopped.result = run.summary()
        notify(run, "run_failed", error=stopped)
        raise stopped
    notify(run, "run_finished", metrics=run.metrics)


def notify(run: Run, what: str, **given: Any) -> None:
    """Tell the plugins that observe runs; of several processes the first does."""
    if run.writes:
        run.registry.notify(f"latentforge_{what}", run=run, **given)


def finish(run: Run, outcome: Outcome, error: str = "") -> None:
    run.training = False
    run.update(status=outcome.status, error=error, ended=now(), **told(outcome))


def told(outcome: Outcome) -> dict[str, Any]:
    """How far a training has come, for run.json."""
    return {
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "images_per_second": round(outcome.images_per_second, 1),
        "metrics": outcome.metrics,
        "per_dim": outcome.per_dim,
        "best": outcome.best,
        "stopped": outcome.stopped,
        "findings": [finding.as_dict() for finding in outcome.findings],
    }
