"""Trainings whose steps an ensemble takes, an epoch at a time; each measures, records and saves as
any training does.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TextIO

from latentforge.contracts import Terms
from latentforge.engine.progress import Progress
from latentforge.engine.step_runner import Stepper
from latentforge.engine.trainer import Trainer
from latentforge.engine.vectorized.ensemble import Ensemble, Taken
from latentforge.errors import RunFailed
from latentforge.plugins.attribution import blame
from latentforge.runtime.signals import stop_on_signals

log = logging.getLogger("latentforge")


class TakenSteps(Stepper):
    """A stepper whose steps have been taken by an ensemble, and are told in their order."""

    def __init__(self, own: Stepper) -> None:
        vars(self).update(vars(own))  # the same optimizer, noise and order
        self.graph = "no: trained together with other members"
        self.told_later: deque[tuple[Taken, int]] = deque()

    def take(self, done: int) -> tuple[Terms, int]:
        taken, row = self.told_later.popleft()
        self._set_rate(done)  # for what is logged and saved
        terms = taken.terms(row)
        self.gate.shut = not bool(terms.total().isfinite())
        self.made += 1
        return terms, taken.images


class MemberProgress(Progress):
    """Says what looks wrong with a member, and whose it is."""

    def __init__(self, name: str) -> None:
        super().__init__(None, epochs=1, steps=1, batch_size=1)
        self.name = name

    def warn(self, text: str) -> None:
        log.warning("%s: %s", self.name, text.removeprefix("warning: "))


class MemberTrainer(Trainer):
    """The training of one member: `advance` by an epoch that the ensemble has taken, then
    `conclude`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.taken = TakenSteps(self.stepper)
        self.stepper = self.taken
        self.progress = MemberProgress(self.store.folder.parent.name)
        self.heard = 0  # the signal that asks for the end

    def advance(self, epoch: int, seconds: float) -> None:
        """Tell the steps of an epoch, counted from 1, and end it: figures, record, checkpoint.

        `seconds` is what the steps took, of all members together.
        """
        self.outcome.seconds += seconds
        self._since = time.perf_counter()
        try:
            self.engine.run(max_epochs=epoch, epoch_length=self.epoch_length)
        finally:
            self._lap()

    def _step(self, _engine: Any, _batch: None) -> Terms:
        terms = super()._step(_engine, _batch)
        if self.heard and not self.taken.told_later:
            self.stop(self.heard)
        return terms

    def conclude(self) -> None:
        """After the last epoch, or after a signal, whose checkpoint may lie in mid-epoch."""
        if self.heard:
            self.stop(self.heard)
        self.outcome.status = "done"
        if self.outcome.epochs < self.train_config.epochs:
            self._finish_early()


class Group:
    """Trains members together, to the end of each. `failed` is told of one that fails, and `done`
    of one that has come to its end; the others go on."""

    def __init__(
        self,
        trainers: Sequence[MemberTrainer],
        *,
        failed: Callable[[Trainer, Exception], None],
        done: Callable[[Trainer], None],
        stream: TextIO | None,
    ) -> None:
        self.live = list(trainers)
        self.failed, self.done = failed, done
        first = self.live[0]
        train = first.train_config
        self.epochs, self.epoch_length = train.epochs, first.epoch_length
        self.heard = 0
        self.progress = Progress(
            stream,
            epochs=train.epochs,
            steps=first.epoch_length,
            batch_size=train.batch_size * len(trainers),
        )

    def fit(self) -> None:
        """Train; after a signal every member has been told to `done` as interrupted."""
        for trainer in self.live:
            trainer.trainee.train()
        with closing(self.progress), stop_on_signals(self.hear):
            self._gather()
            for epoch in range(self.epochs):
                seconds = self._take_epoch(epoch)
                for trainer in list(self.live):
                    self._advance(trainer, epoch + 1, seconds)
                if self.heard or not self.live:
                    break
            for trainer in list(self.live):
                self._leave(trainer)

    def hear(self, number: int) -> None:
        self.heard = number

    def _gather(self) -> None:
        """Stack those that are left."""
        if self.live:
            spec = self.live[0].data.spec
            configs = [trainer.config for trainer in self.live]
            self.ensemble = Ensemble([trainer.taken for trainer in self.live], configs, spec)

    def _take_epoch(self, epoch: int) -> float:
        """All steps of an epoch, or those up to a signal; the seconds they took."""
        began = time.perf_counter()
        self.ensemble.start_epoch(epoch)
        entries = self.live[0].config.model.entry, self.live[0].config.loss.entry
        for done in range(epoch * self.epoch_length, (epoch + 1) * self.epoch_length):
            if self.heard:
                break
            what = f"step {done + 1} of {len(self.live)} members together"
            with blame(what, *entries, save_memory="--no-together"):
                self._take(epoch, done)
            self.progress.tick(done + 1)
            if not self.live:
                break
        self.ensemble.hand_back()
        return time.perf_counter() - began

    def _take(self, epoch: int, done: int) -> None:
        taken = self.ensemble.take(done)
        steppers = self.ensemble.steppers
        if not taken.finite:  # whose loss it is stops here, with the weights before it
            bad = [row for row, _ in enumerate(steppers) if not _finite(taken, row)]
            if not bad:
                self._drop_for_a_term_without_weight(taken, done)
                self._take_again(epoch, done)
                return
            ruined = {id(steppers[row]): row for row in bad}
            self.ensemble.hand_back()
            for trainer in [t for t in self.live if id(t.taken) in ruined]:
                trainer.taken.told_later.append((taken, ruined[id(trainer.taken)]))
                self.live.remove(trainer)
                self._advance(trainer, epoch + 1, 0.0)
            self._gather()
            self._take_again(epoch, done)
            return
        for row, stepper in enumerate(steppers):
            assert isinstance(stepper, TakenSteps)
            stepper.told_later.append((taken, row))

    def _take_again(self, epoch: int, done: int) -> None:
        if self.live:
            self.ensemble.start_epoch(epoch)
            self._take(epoch, done)

    def _drop_for_a_term_without_weight(self, taken: Taken, done: int) -> None:
        """Fail the members that have an infinite term of weight 0: alone they leave it out, and in
        the sum that all share 0 times infinity is NaN."""
        self.ensemble.hand_back()
        dropped = False
        for row, stepper in enumerate(list(self.ensemble.steppers)):
            bad = [name for name, value in taken.values.items() if not value[row].isfinite()]
            for trainer in [t for t in self.live if bad and t.taken is stepper]:
                error = RunFailed(
                    f"the term {bad[0]!r}, whose weight is 0, became NaN or infinite at step "
                    f"{done + 1}, and members that are trained together cannot leave it out",
                    remedy="sweep --resume with --retry, which trains it by itself",
                )
                self._drop(trainer)
                self.failed(trainer, error)
                dropped = True
        if not dropped:
            raise RunFailed(f"the sum of the members' losses became NaN at step {done + 1}")

    def _advance(self, trainer: MemberTrainer, epoch: int, seconds: float) -> None:
        """End the epoch of one member, and the member where that is its last one."""
        trainer.heard = self.heard
        if not trainer.taken.told_later:
            return  # a signal came before its first step
        try:
            trainer.advance(epoch, seconds)
        except Exception as error:
            self._drop(trainer)
            self.failed(trainer, error)
            return
        if trainer.outcome.stopped:
            self._drop(trainer)
            self._leave(trainer)

    def _drop(self, trainer: MemberTrainer) -> None:
        if trainer in self.live:
            self.live.remove(trainer)
            self._gather()

    def _leave(self, trainer: MemberTrainer) -> None:
        if not trainer.outcome.stopped:  # the signal may have come after its last look
            trainer.heard = self.heard
        try:
            trainer.conclude()
        except Exception as error:
            self.failed(trainer, error)
        else:
            self.done(trainer)


def _finite(taken: Taken, row: int) -> bool:
    return bool(taken.terms(row).total().isfinite())
