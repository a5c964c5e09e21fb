"""Group and MemberTrainer, which train the runs whose steps an Ensemble executes together.

Each member evaluates, records and saves like a separate run.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TextIO

import torch

from latentforge.config.schema import RunConfig
from latentforge.contracts import Terms
from latentforge.data.images import ImageSplit
from latentforge.engine.progress import Progress
from latentforge.engine.step import StepRunner, Trainee
from latentforge.engine.trainer import Trainer
from latentforge.engine.vectorized.ensemble import Ensemble, StackedTerms
from latentforge.errors import RunFailed
from latentforge.plugins.attribution import call_component
from latentforge.runtime.signals import stop_on_signals

log = logging.getLogger("latentforge")


class StackedStep(StepRunner):
    """Returns the steps that an ensemble has already run, one by one in order."""

    def __init__(
        self,
        trainee: Trainee,
        images: ImageSplit,
        config: RunConfig,
        device: torch.device,
        _processes: None,
    ) -> None:
        super().__init__(trainee, images, config, device)
        self.graph = "no: trained together with other members"
        self.pending: deque[tuple[StackedTerms, int]] = deque()  # the second is the member's row

    def run(self, done: int) -> Terms:
        stacked, row = self.pending.popleft()
        if self.schedule:
            self.set_learning_rate(done)  # for the log and the checkpoint
        terms = stacked.terms(row)
        self.gate.blocked = not bool(terms.total().isfinite())
        self.record(terms, stacked.images)
        return terms


class MemberProgress(Progress):
    """Logs the warnings of a member with the member's name."""

    def __init__(self, name: str) -> None:
        super().__init__(None, epochs=1, steps=1, batch_size=1)
        self.name = name

    def warn(self, text: str) -> None:
        log.warning("%s: %s", self.name, text.removeprefix("warning: "))


class MemberTrainer(Trainer):
    """Trains one member: `advance` is called after each epoch that the ensemble has run, and
    `conclude` at the end."""

    steps: StackedStep
    build_steps = StackedStep

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.progress = MemberProgress(self.store.folder.parent.name)
        self.signal_received = 0  # the signal that requests the end

    def advance(self, epoch: int, seconds: float) -> None:
        """Log the steps of an epoch, counted from 1, and end it with metrics and a checkpoint.

        `seconds` is the time that the steps took for all members together.
        """
        self.result.seconds += seconds
        self._since = time.perf_counter()
        try:
            self.engine.run(max_epochs=epoch, epoch_length=self.steps.epoch_length)
        finally:
            self._add_time()

    def _step(self, _engine: Any, _batch: None) -> Terms:
        terms = super()._step(_engine, _batch)
        if self.signal_received and not self.steps.pending:
            self.stop(self.signal_received)
        return terms

    def conclude(self) -> None:
        """Finish the run after the last epoch or after a signal. A signal may cause a checkpoint in
        the middle of an epoch."""
        if self.signal_received:
            self.stop(self.signal_received)
        self.result.status = "done"
        if self.result.epochs < self.train_config.epochs:
            self._finish_early()


class Group:
    """Trains members together until each has ended. `on_failed` is called with a member that fails,
    `on_done` with one that has ended; the others continue."""

    def __init__(
        self,
        trainers: Sequence[MemberTrainer],
        *,
        on_failed: Callable[[Trainer, Exception], None],
        on_done: Callable[[Trainer], None],
        stream: TextIO | None,
    ) -> None:
        self.running = list(trainers)
        self.on_failed, self.on_done = on_failed, on_done
        first = self.running[0]
        train = first.train_config
        self.epochs, self.epoch_length = train.epochs, first.steps.epoch_length
        self.signal_received = 0
        size = train.batch_size * len(trainers)
        self.progress = Progress(
            stream, epochs=self.epochs, steps=self.epoch_length, batch_size=size
        )

    def fit(self) -> None:
        """Train all members. After a signal, `on_done` is called with each remaining one, whose
        status is "interrupted"."""
        for trainer in self.running:
            trainer.steps.trainee.train()
        with closing(self.progress), stop_on_signals(self.on_signal):
            self._stack_members()
            for epoch in range(self.epochs):
                seconds = self._run_epoch(epoch)
                for trainer in list(self.running):
                    self._advance(trainer, epoch + 1, seconds)
                if self.signal_received or not self.running:
                    break
            for trainer in list(self.running):
                self._conclude(trainer)

    def on_signal(self, number: int) -> None:
        self.signal_received = number

    def _stack_members(self) -> None:
        """Stack the remaining members; `rows` maps each member to its row."""
        if self.running:
            spec = self.running[0].data.spec
            configs = [trainer.config for trainer in self.running]
            self.ensemble = Ensemble([trainer.steps for trainer in self.running], configs, spec)
            runners = self.ensemble.runners
            self.rows = {trainer: runners.index(trainer.steps) for trainer in self.running}

    def _run_epoch(self, epoch: int) -> float:
        """Run all steps of an epoch, or those before a signal; return the seconds they took."""
        start = time.perf_counter()
        self.ensemble.start_epoch(epoch)
        entries = self.running[0].config.model.entry, self.running[0].config.loss.entry
        for done in range(epoch * self.epoch_length, (epoch + 1) * self.epoch_length):
            if self.signal_received:
                break
            action = f"step {done + 1} of {len(self.running)} members trained together"
            call_component(
                action, entries, self._run_step, epoch, done, save_memory="--no-together"
            )
            self.progress.tick(done + 1)
            if not self.running:
                break
        self.ensemble.unstack()
        return time.perf_counter() - start

    def _run_step(self, epoch: int, done: int) -> None:
        stacked, rows = self.ensemble.run(done), self.rows
        if stacked.finite:
            for trainer, row in rows.items():
                trainer.steps.pending.append((stacked, row))
            return
        self.ensemble.unstack()
        # a member whose loss is not finite stops here, with the weights before this step
        not_finite = [t for t, row in rows.items() if not stacked.terms(row).total().isfinite()]
        for trainer in not_finite:
            trainer.steps.pending.append((stacked, rows[trainer]))
            self.running.remove(trainer)
            self._advance(trainer, epoch + 1, 0.0)
        if not_finite:
            self._stack_members()
        else:
            self._drop_infinite_terms(stacked, done)
        if self.running:
            self.ensemble.start_epoch(epoch)
            self._run_step(epoch, done)

    def _drop_infinite_terms(self, stacked: StackedTerms, done: int) -> None:
        """Drop, as failed, the members that have an infinite term of weight 0. A separate run skips
        such a term, but in the shared sum 0 times infinity is NaN."""
        dropped = False
        for trainer, row in self.rows.items():
            infinite = [name for name, value in stacked.values.items() if not value[row].isfinite()]
            if infinite:
                error = RunFailed(
                    f"the term {infinite[0]!r}, whose weight is 0, became NaN or infinite at step "
                    f"{done + 1}, and members that are trained together cannot skip it",
                    hint="`latentforge sweep --resume SWEEP --retry` trains it on its own",
                )
                self._drop(trainer)
                self.on_failed(trainer, error)
                dropped = True
        if not dropped:
            raise RunFailed(f"the sum of the members' losses became NaN at step {done + 1}")

    def _advance(self, trainer: MemberTrainer, epoch: int, seconds: float) -> None:
        """End the epoch of one member, and finish the member if its run has stopped."""
        trainer.signal_received = self.signal_received
        if not trainer.steps.pending:
            return  # a signal came before its first step
        try:
            trainer.advance(epoch, seconds)
        except Exception as error:
            self._drop(trainer)
            self.on_failed(trainer, error)
            return
        if trainer.result.stopped:
            self._drop(trainer)
            self._conclude(trainer)

    def _drop(self, trainer: MemberTrainer) -> None:
        if trainer in self.running:
            self.running.remove(trainer)
            self._stack_members()

    def _conclude(self, trainer: MemberTrainer) -> None:
        if not trainer.result.stopped:  # the signal may have come after its last step
            trainer.signal_received = self.signal_received
        try:
            trainer.conclude()
        except Exception as error:
            self.on_failed(trainer, error)
        else:
            self.on_done(trainer)
