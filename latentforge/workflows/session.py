"""A training session: trains in a run folder, and records there how the run ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from latentforge.config.data_command import complete_command
from latentforge.config.schema import RunConfig
from latentforge.config.selection import fit_to_loss, training_measures
from latentforge.data.splits import DataSplits
from latentforge.engine.build import move_to_device
from latentforge.engine.checkpoint_state import restore
from latentforge.engine.class_balance import check_training_classes
from latentforge.engine.data_checks import check_training_images
from latentforge.engine.distributed import train_in_group
from latentforge.engine.loss_weights import check_loss_weights
from latentforge.engine.step import Trainee
from latentforge.engine.trainer import Trainer
from latentforge.engine.training_state import TrainingResult, restore_result
from latentforge.errors import Interrupted, LatentForgeError, RunFailed, Terminated, one_line
from latentforge.io.paths import quoted
from latentforge.latent import dimension_names
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runs.manifest import describe_progress, now, select_options
from latentforge.runs.tensorboard import Board, NoBoard, flatten_metrics
from latentforge.runtime import torchrun
from latentforge.workflows.evaluate import warn_if_baseline
from latentforge.workflows.run import Run

if TYPE_CHECKING:
    from latentforge.runtime.process_group import ProcessGroup

TRAIN_PROTOCOL = "mean over the steps of the last epoch, in training mode, while the weights change"


class TrainingSession:
    """A context manager whose `fit` trains in the folder of `run`, from the start or from the
    checkpoint `saved`. Entering the context builds the trainer and does not change a resumed run.
    Leaving it records how the run ended, and raises Interrupted after a signal."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        splits: DataSplits,
        trainee: Trainee,
        device: torch.device,
        *,
        quiet: bool,
        verbose: bool = False,
        saved: Checkpoint | None = None,
        processes: ProcessGroup | None = None,
        trainer: type[Trainer] = Trainer,
    ) -> None:
        self.run, self.config, self.splits = run, config, splits
        self.trainee, self.device, self.quiet = trainee, device, quiet
        self.verbose = verbose
        self.saved, self.processes, self.trainer_class = saved, processes, trainer
        self.result = restore_result(saved) if saved else TrainingResult()

    def __enter__(self) -> TrainingSession:
        monitor, measures = training_measures(
            self.run.registry, self.config, self.splits.spec, self.splits.splits
        )
        measures, self.notice = fit_to_loss(measures, self.config.loss, self.trainee.loss)
        written = self.saved.state.get("events") if self.saved else None
        board_class = Board if self.run.writes else NoBoard
        with ExitStack() as stack:
            if self.processes:
                stack.enter_context(train_in_group(self.run.path, self.processes))
            stack.enter_context(record_end(self.run, self.result))
            self.board = stack.enter_context(closing(board_class(self.run.path, written)))
            if not self.saved:
                notify(self.run, "run_started")
            if self.processes:
                self.processes.broadcast_weights(self.trainee)
            splits = move_to_device(self.splits, self.device)
            for role in self.config.loaded_roles.values() if self.config.roles else ():
                role.use(splits)
            self.trainer = self.trainer_class(
                self.trainee,
                splits,
                self.config,
                device=self.device,
                measures=measures,
                monitor=monitor,
                store=CheckpointStore(self.run.path / "checkpoints"),
                board=self.board,
                record=self._record,
                stream=None if self.quiet or not self.run.writes else sys.stderr,
                result=self.result,
                protocol=self.run.manifest.get("evaluation_protocol", 1),
                processes=self.processes,
            )
            if self.saved:
                restore(self.trainer.state, self.saved)
            self._stack = stack.pop_all()
        return self

    def fit(self) -> None:
        """Train to the end, or until a signal."""
        self.begin()
        self.trainer.fit()

    def begin(self) -> None:
        """Record the start in the run, and report it to plugins and to the user."""
        progress, steps = self.trainer.progress, self.trainer.steps
        if self.saved:  # not in __enter__, which leaves a resumed run unchanged
            notify(self.run, "run_started")
        latent: Any = getattr(self.trainee.model, "latent", None)
        groups = getattr(latent, "groups", None)
        names = {"dimension_names": dimension_names(latent)} if groups else {}
        self.run.update(events=[*self.board.file_sizes()], steps_made=steps.describe(), **names)
        if self.saved:
            self.board.mark_restart(self.result.steps)
            progress.note(f"resumed after step {self.result.steps} ({self.saved.name})")
            if 0 < (length := self.config.train.schedule.epochs) < self.config.train.epochs:
                progress.note(f"the schedule ends with epoch {length}; lr is constant afterwards")
        else:
            check_loss_weights(self.config.loss, steps)
            self._report_start()
        for note in steps.notes:
            progress.warn(note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if error is not None:
            return self._stack.__exit__(kind, error, trace)
        with self._stack:
            manifest, trainer = self.run.manifest, self.trainer
            manifest["steps_made"] = trainer.steps.describe()
            manifest["protocol"] = {"train": TRAIN_PROTOCOL, **trainer.evaluator.protocol}
            if self.result.status == "done":
                counts = trainer.data.class_counts().get("test", {})
                warn_if_baseline(self.result.metrics.get("test", {}), counts, "test", self.config)
            if self.result.status == "done":  # hparams without test metrics hide other runs
                metrics = flatten_metrics(self.result.metrics)
                self.board.add_hparams(select_options(self.run.config), metrics)
        return None

    def _record(self, line: dict[str, Any]) -> None:
        """Record an epoch, also in run.json, for readers during the run or after it was killed."""
        self.run.record(line)
        self.run.update(**describe_progress(self.result))

    def _report_start(self) -> None:
        """Report how steps are run, suspected problems with the data, and the facts of the loss if
        the user wants to see them."""
        progress, trainer = self.trainer.progress, self.trainer
        for line in format_facts(self.run.manifest["facts"]) if self.verbose else ():
            progress.note(line)
        if summary := trainer.steps.summary():
            progress.note(f"steps: {', '.join(summary)}")
        if self.notice:
            progress.warn(f"warning: {self.notice}")
        self.result.findings += check_training_images(
            trainer.images,
            getattr(self.trainee.loss, "likelihood", None),
            kl="kl" in self.config.model.entry.provides,
            levels=trainer.data.levels,
        )
        counts = self.trainer.data.class_counts().get("train")
        if counts and "classify" in self.config.model.entry.provides:
            self.result.findings += check_training_classes(counts)
        self.result.findings[:] = [
            replace(finding, attempt=complete_command(finding.attempt, self.config))
            for finding in self.result.findings
        ]
        for diagnosis in self.result.findings:
            progress.warn(str(diagnosis))


def format_facts(facts: dict[str, Any]) -> list[str]:
    """Format a line for each fact; names that differ only in the text in brackets share a line."""
    values_by_name: dict[str, list[str]] = {}
    for name, value in facts.items():
        label, _, qualifier = name.removesuffix(")").partition(" (")
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        shown += f" ({qualifier})" if qualifier else ""
        values_by_name.setdefault(label, []).append(shown)
    return [f"{label}: {', '.join(values)}" for label, values in values_by_name.items()]


@contextmanager
def record_end(run: Run, result: TrainingResult) -> Iterator[None]:
    """Record in the run how it ended, whether or not an error is raised."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.training:
            raise
        result.status = "interrupted"
    except BaseException as error:
        result.status = "failed"
        is_ours = isinstance(error, LatentForgeError)
        if run.training:  # otherwise it has not started and is unchanged
            with suppress(RunFailed):  # a full disk fails here too; the first error is raised
                finish(run, result, error=str(error) if is_ours else one_line(error))
            notify(run, "run_failed", error=error)
        if isinstance(error, LatentForgeError):
            error.result = run.summary()
        raise
    finish(run, result)
    if result.status == "interrupted":
        has_checkpoint = (run.path / "checkpoints" / "LATEST").exists()
        suffix = f"; the last checkpoint is in {run.path}" if has_checkpoint else ""
        kind = Terminated if result.signal == signal.SIGTERM else Interrupted
        message = f"{kind.__name__.lower()} at step {result.steps}{suffix}"
        command = torchrun.restart_command(f"latentforge train --resume {quoted(run.path)}")
        interrupted = kind(message, hint=command if has_checkpoint else "")
        interrupted.result = run.summary()
        notify(run, "run_failed", error=interrupted)
        raise interrupted
    notify(run, "run_finished", metrics=run.metrics)


def finish(run: Run, result: TrainingResult, error: str = "") -> None:
    run.training = False
    run.update(status=result.status, error=error, ended=now(), **describe_progress(result))


def notify(run: Run, event: str, **arguments: Any) -> None:
    """Call the plugins that observe runs. With several processes, only the first does so."""
    if run.writes:
        run.registry.notify(f"latentforge_{event}", run=run, **arguments)
