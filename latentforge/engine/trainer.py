"""The training of one run: an Ignite engine around our own step, and what happens at each epoch.

Steps, epochs and images are counted from 1 in everything a user reads; `Step.index` from 0.
"""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

import torch
from ignite.engine import Engine, Events

from latentforge.config.schema import Component, RunConfig
from latentforge.contracts import Engines, Terms, at_once
from latentforge.data.splits import DataSplits
from latentforge.engine.best_checkpoint import Selection
from latentforge.engine.checkpoint_state import callback_states, capture, restore
from latentforge.engine.diagnostics import Course, trouble
from latentforge.engine.evaluator import BATCH, Evaluator, quiet_engine
from latentforge.engine.loss_log import History, NotFinite
from latentforge.engine.progress import Progress
from latentforge.engine.result import Outcome
from latentforge.engine.step import Trainee, check_finite
from latentforge.engine.step_runner import Stepper
from latentforge.errors import RunFailed
from latentforge.plugins.attribution import blame
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runs.tensorboard import Board, flat_dims, flat_metrics, pair_sheet
from latentforge.runtime.device import one_result
from latentforge.runtime.signals import stop_on_signals
from latentforge.seeding import Noise

if TYPE_CHECKING:
    from latentforge.engine.data_parallel import SharedStep

SHOWN = 8  # images in the reconstructions of each epoch
SETTLED = 3, 300  # epochs and steps before the figures are judged: a KL near 0 may yet grow
BY_A_CALLBACK = "a callback ended the training"


class Trainer:
    """Trains `trainee` on `data["train"]`, both on `device`; `record` keeps a line of metrics, and
    `stream`, if there is one, shows progress."""

    def __init__(
        self,
        trainee: Trainee,
        data: DataSplits,
        config: RunConfig,
        *,
        device: torch.device,
        measures: Sequence[Component],
        monitor: Component,
        store: CheckpointStore,
        board: Board,
        record: Callable[[dict[str, Any]], None],
        stream: TextIO | None,
        outcome: Outcome,
        shared: SharedStep | None = None,
    ) -> None:
        train = config.train
        self.trainee, self.data, self.config, self.train_config = trainee, data, config, train
        self.store, self.board, self.record = store, board, record
        self.device, self.images = device, data.split("train")
        self.processes = shared.processes if shared else None
        self.stepper = Stepper(trainee, self.images, config, device, shared)
        self.optimizer, self.average = self.stepper.optimizer, self.stepper.average
        self.epoch_length = self.stepper.epoch_length
        self.total_steps = self.stepper.total_steps
        self.progress = Progress(
            stream, epochs=train.epochs, steps=self.epoch_length, batch_size=train.batch_size
        )
        self.history = History()
        self.outcome = outcome  # the caller's, who reads it when fit raises
        self.selection = Selection(train, monitor.entry)
        self.saved_step = -1
        self.held: list[float] = []  # the validation loss of each epoch
        self.course = Course()
        self.closed_step = -1  # the last step that was measured and recorded
        self.stopping, self._saved_at = False, time.monotonic()
        self.callbacks: list[tuple[Component, Any]] = []
        self._since = 0.0  # when the running lap of training time began
        measured = self.average.trainee if self.average else trainee
        self.evaluator = Evaluator(
            measured.model, measured.loss, data, measures, seed=train.seed, device=device
        )
        self.engine = self._build_engine()

    def _build_engine(self) -> Engine:
        engine = quiet_engine(self._step)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        if self.config.callbacks:  # what they draw is a function of the step too
            drawn = Noise(self.device, "callbacks", self.train_config.seed)
            for event in (Events.EPOCH_STARTED, Events.ITERATION_STARTED, Events.EPOCH_COMPLETED):
                engine.add_event_handler(event, lambda: drawn.reseed(self.outcome.steps))
        engines = Engines(
            trainer=engine,
            evaluator=self.evaluator.engine,
            model=self.trainee.model,
            loss=self.trainee.loss,
            optimizer=self.optimizer,
            log=lambda name, value: self.board.scalars({name: value}, engine.state.iteration),
        )
        for callback in self.config.callbacks:
            with blame(f"callback {callback.name!r}", callback.entry):
                built = callback.entry.spec.build(callback.options)
                built.attach(engines)
            self.callbacks.append((callback, built))
        # After the callbacks' own handlers, so that a checkpoint holds what they did.
        if self.processes and self.callbacks:
            for event in (Events.EPOCH_STARTED, Events.ITERATION_STARTED):
                engine.add_event_handler(event, self._end_in_all)
            for event in (Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED):
                engine.add_event_handler(event, self._end_in_all)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        if self.processes and self.callbacks:  # theirs on the evaluator's events
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_in_all)
        if self.train_config.checkpoint_every or self.train_config.checkpoint_seconds:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_when_due)
        return engine

    def resume(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint, which may lie in the middle of an epoch."""
        restore(self, saved)
        self.progress.first = self.outcome.steps
        self.engine.load_state_dict(
            {
                "iteration": self.outcome.steps,
                "epoch_length": self.epoch_length,
                "max_epochs": self.train_config.epochs,
            }
        )

    def fit(self) -> None:
        """Run to the end, or until Ctrl-C; the outcome's status says which."""
        callback_states(self)  # what is wrong with one is told before it costs an epoch
        with closing(self.progress), one_result():
            self._run_engine()
            self.outcome.status = "done"
            if self.outcome.epochs < self.train_config.epochs:
                self._finish_early()
            for passed in self.course.passed():
                self.progress.note(str(passed))

    def _run_engine(self) -> None:
        self.trainee.train()
        self._since = time.perf_counter()
        try:
            with nullcontext() if self.processes else stop_on_signals(self.stop):
                if self._end_open_epoch():
                    self.engine.run(
                        max_epochs=self.train_config.epochs, epoch_length=self.epoch_length
                    )
        except BaseException as error:  # one that calls sys.exit, too
            if self._is_of_a_callback(error):
                with blame("a callback", *(callback.entry for callback in self.config.callbacks)):
                    raise
            raise
        finally:
            self.stepper.close()
            self._lap()

    def _end_open_epoch(self) -> bool:
        """End an epoch that was stopped between its last step and its figures; whether there is
        more to train. Handlers see what they see of any epoch."""
        done = self.outcome.steps
        if done and done % self.epoch_length == 0 and self.closed_step != done:
            self.engine.fire_event(Events.STARTED)
            self.engine.fire_event(Events.EPOCH_COMPLETED)
        return done < self.total_steps and not self.outcome.stopped

    def stop(self, number: int = signal.SIGINT) -> None:
        """End after the step that is running; its checkpoint is kept. Safe in a signal handler."""
        self.stopping, self.outcome.signal = True, number
        self.engine.terminate()

    def _finish_early(self) -> None:
        """After a signal, or when the engine was stopped: keep what was reached."""
        if self.stopping:
            self.outcome.status = "interrupted"
            self._save()
        elif self.closed_step != self.outcome.steps:  # stopped in the middle of an epoch
            self.outcome.stopped = BY_A_CALLBACK
            self._close_epoch(last=True)

    def _is_of_a_callback(self, error: BaseException) -> bool:
        """Whether it was raised in a handler that is none of ours."""
        own = (Trainer._step, Trainer._start_epoch, Trainer._end_epoch, Trainer._save_when_due)
        ours = {function.__code__ for function in own}
        codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
        return bool(self.config.callbacks) and not codes & ours

    # ------------------------------------------------------------ one step

    def _start_epoch(self, engine: Engine) -> None:
        if self.stopping:  # asked for before the engine ran, which forgets it when it starts
            engine.terminate()
        self.stepper.start_epoch(engine.state.epoch - 1)

    def _step(self, _engine: Engine, _batch: None) -> Terms:
        done = self.outcome.steps
        terms, images = self.stepper.take(done)
        self.history.add(terms, images)
        self.outcome.images += images
        self.outcome.steps = done + 1
        if self.processes and self.processes.heard:
            self.stop(self.processes.heard)
        if self.stepper.gate.shut:
            self._fetch_history()
        if (done + 1) % self.train_config.log_every == 0:
            self._read_history()
        self.progress.tick(done + 1)
        return terms

    def _fetch_history(self) -> None:
        """Raises RunFailed where a loss was not finite, with what its step can tell."""
        step = self.outcome.steps
        try:
            with blame("reading the loss", self.config.loss.entry):
                self.history.fetch(step)
        except NotFinite as error:
            error.details = tuple(self.stepper.post_mortem(error.step))
            raise
        if self.stepper.gate.closed():
            raise RunFailed(
                f"the gradient became NaN or infinite by step {step}, and its loss did not",
                details=self.stepper.post_mortem(step) if self.stepper.gate.wait else (),
                remedy="a smaller --lr",
            )

    def _read_history(self) -> None:
        step = self.outcome.steps
        self._fetch_history()
        if means := self.history.read():
            self.progress.loss = means["loss"]
            scalars = {f"step/{name}": value for name, value in means.items()}
            self.board.scalars({**scalars, "step/lr": self.stepper.lr()}, step)

    def _end_in_all(self, engine: Engine) -> None:
        """A callback that ends the training in one process ends it in all."""
        if self.processes and self.processes.any(bool(engine.should_terminate), self._when()):
            engine.terminate()

    def _when(self) -> str:
        return f"after step {self.outcome.steps}"

    # ------------------------------------------------------------ one epoch

    def _end_epoch(self, engine: Engine) -> None:
        self.outcome.epochs = engine.state.epoch
        # by a callback, whose handlers run before this one; a signal ends no epoch early
        stopped = bool(engine.should_terminate) and not self.stopping
        last = engine.state.epoch == self.train_config.epochs
        if stopped and not last:
            self.outcome.stopped = BY_A_CALLBACK
        self._close_epoch(last=stopped or last)

    def _close_epoch(self, *, last: bool) -> None:
        """Measure, log, save; for an epoch that a callback cut short too."""
        self._read_history()
        self._lap()
        epoch = math.ceil(self.outcome.steps / self.epoch_length)
        means, per_dim = self.history.close_epoch()
        if self.processes:  # who had no images in a small batch does not know its weights
            means, per_dim = self.processes.tell([means, per_dim], self._when())
        self.outcome.metrics["train"], self.outcome.per_dim = means, per_dim
        splits = ["train"]
        best = False
        if "validation" in self.data.splits:
            self._measure("validation")
            self.held.append(self.outcome.metrics["validation"]["loss"])
            splits.append("validation")
            best = self._select(epoch)
            last = last or self.selection.exhausted
        every = self.train_config.evaluate_every
        if last or (every and epoch % every == 0):
            self._measure("test")
            splits.append("test")
        self._since = time.perf_counter()  # evaluation is not training time
        figures = {split: self.outcome.metrics[split] for split in splits}
        self._log_epoch(epoch, figures, per_dim)
        self.progress.epoch(epoch, figures)
        self._warn(epoch, last=last)
        self.closed_step = self.outcome.steps  # the checkpoint says so, and what was found
        self._save(best=best)
        self._lap()

    def _warn(self, epoch: int, *, last: bool) -> None:
        """Say, once each, what looks wrong when the first epochs have settled, and keep what of it
        still does."""
        if not last and (epoch < SETTLED[0] or self.outcome.steps < SETTLED[1]):
            return
        train = self._loss_of_a_sample() if self.held else None
        for finding in self.course.follow(epoch, trouble(self.outcome.per_dim, train, self.held)):
            self.progress.warn(str(finding))
        others = [f for f in self.outcome.findings if f.check not in self.course.seen]
        self.outcome.findings[:] = [*others, *self.course.findings()]

    def _loss_of_a_sample(self) -> float:
        """The loss of some training images, taken as that of the validation images is."""
        most = at_once(self.data.spec, BATCH)
        places = torch.arange(min(most, len(self.images)), device=self.device)
        batch = self.images.batch(places * len(self.images) // len(places))
        return self.evaluator.loss_of(batch, self.stepper.end())

    def _select(self, epoch: int) -> bool:
        """Whether the epoch is the best; ends the training where patience has run out."""
        best = self.selection.judge(self.outcome.metrics["validation"], epoch)
        if self.selection.best is not None:
            figure = f"validation/{self.selection.figure}"
            self.outcome.best = {"epoch": self.selection.epoch, figure: self.selection.best}
        last = epoch == self.train_config.epochs or self.outcome.stopped
        if self.selection.exhausted and not last:
            self.outcome.stopped = self.selection.reason()
            self.progress.note(f"stopped after epoch {epoch}: {self.outcome.stopped}")
            self.engine.terminate()
        return best

    def _measure(self, split: str) -> None:
        """Raises RunFailed where the last step has ruined the weights, which its loss, taken
        before it, does not show."""
        figures = self.evaluator.run(split, self.stepper.end())
        if self.processes:  # each has measured every image; what is decided is decided for all
            figures = self.processes.tell(figures, self._when())
        if not math.isfinite(loss := figures["loss"]):
            raise RunFailed(
                f"the loss on the {split} split became {loss} after step {self.outcome.steps}",
                remedy="a smaller --lr",
            )
        self.outcome.metrics[split] = figures

    def _log_epoch(
        self, epoch: int, figures: dict[str, dict[str, float]], per_dim: dict[str, list[float]]
    ) -> None:
        step = self.outcome.steps
        self._lap()
        rate = self.outcome.images_per_second
        speed = {"train/images_per_second": rate, "train/epoch": epoch}
        self.board.scalars({**flat_metrics(figures), **speed, **flat_dims(per_dim)}, step)
        provided = self.config.model.entry.spec.provides
        if {"encode", "decode"} <= provided and self.data.spec.drawable:
            pair = self.evaluator.reconstructions(SHOWN)
            self.board.picture("reconstructions", pair_sheet(*pair), step)
        line = {"epoch": epoch, "step": step, "images_per_second": rate, **figures}
        self.record({**line, "per_dim": per_dim} if per_dim else line)

    # ------------------------------------------------------------ state and time

    def _save_when_due(self) -> None:
        """In the middle of an epoch; at its end there is one anyway, with its figures."""
        step, every = self.outcome.steps, self.train_config.checkpoint_every
        seconds = self.train_config.checkpoint_seconds
        due = (every and step % every == 0) or (
            seconds and time.monotonic() - self._saved_at >= seconds
        )
        if due and step % self.epoch_length:
            self._save()

    def _save(self, *, best: bool = False) -> None:
        step = self.outcome.steps
        if step == self.saved_step:
            return
        self._fetch_history()
        check_finite(self.trainee, step)
        self._lap()
        if not self.processes or self.processes.first:
            self.store.save(f"step-{step:08d}", *capture(self), best=best)
        self.saved_step, self._saved_at = step, time.monotonic()

    def _lap(self) -> None:
        now = time.perf_counter()
        self.outcome.seconds += now - self._since
        self._since = now
