"""The training of one run: an Ignite engine around our own step, and what happens at each epoch.

Steps, epochs and images are counted from 1 in everything a user reads; `Step.index` from 0.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

import torch
from ignite.engine import Engine, Events

from latentforge.checkpoint import CheckpointStore
from latentforge.config import Component, RunConfig
from latentforge.contracts import Engines, Step, Terms
from latentforge.data import DataSplits
from latentforge.engine.evaluator import Evaluator, quiet_engine
from latentforge.engine.history import History
from latentforge.engine.progress import Progress
from latentforge.engine.step import Trainee, build_optimizer, take_step
from latentforge.engine.tensorboard import Board, flat_metrics, pair_sheet
from latentforge.errors import RunFailed
from latentforge.guard import blame
from latentforge.seeding import Noise, permutation

SHOWN = 8  # images in the reconstructions of each epoch


@dataclass
class Outcome:
    """How far a training came. `seconds` is training time: start-up and evaluation are left out."""

    status: str = "running"
    epochs: int = 0  # completed ones
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


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
        store: CheckpointStore,
        board: Board,
        record: Callable[[dict[str, Any]], None],
        stream: TextIO | None,
        outcome: Outcome,
    ) -> None:
        train = config.train
        self.trainee, self.data, self.config, self.train_config = trainee, data, config, train
        self.store, self.board, self.record = store, board, record
        self.device = device
        self.images = data.split("train")
        self.epoch_length = math.ceil(len(self.images) / train.batch_size)
        self.total_steps = train.epochs * self.epoch_length
        self.progress = Progress(
            stream, epochs=train.epochs, steps=self.epoch_length, batch_size=train.batch_size
        )
        self.optimizer = build_optimizer(trainee, train)
        self.noise = Noise(device, "train", train.seed)
        self.history = History()
        self.outcome = outcome  # the caller's, who reads it when fit raises
        self.best_score = math.inf
        self.saved_step = -1
        self.stopping = False
        self._since = 0.0  # when the running lap of training time began
        self.order: tuple[torch.Tensor, ...] = ()
        self.evaluator = Evaluator(
            trainee.model, trainee.loss, data, measures, seed=train.seed, device=device
        )
        self.engine = self._build_engine()

    def _build_engine(self) -> Engine:
        engine = quiet_engine(self._step)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
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
                callback.entry.spec.build(callback.options).attach(engines)
        # After the callbacks' own handlers, so that a checkpoint holds what they did.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        return engine

    def fit(self) -> None:
        """Run to the end, or until Ctrl-C; the outcome's status says which."""
        with closing(self.progress):
            self._run_engine()
            self.outcome.status = "done"
            if self.outcome.epochs < self.train_config.epochs:
                self._finish_early()

    def _run_engine(self) -> None:
        self.trainee.train()
        self._since = time.perf_counter()
        try:
            with stop_on_interrupt(self):
                self.engine.run(max_epochs=self.train_config.epochs, epoch_length=self.epoch_length)
        except Exception as error:
            if self._is_of_a_callback(error):
                with blame("a callback", *(callback.entry for callback in self.config.callbacks)):
                    raise
            raise
        finally:
            self._lap()

    def stop(self) -> None:
        """End after the step that is running; its checkpoint is kept. Safe in a signal handler."""
        self.stopping = True
        self.engine.terminate()

    def _finish_early(self) -> None:
        """After Ctrl-C, or a callback that stopped the engine: keep what was reached."""
        if self.stopping:
            self.outcome.status = "interrupted"
            self._read_history()
            self._save()
        else:
            self._close_epoch(
                [split for split in ("validation", "test") if split in self.data.splits]
            )

    def _is_of_a_callback(self, error: Exception) -> bool:
        """Whether it was raised in a handler that is none of ours."""
        ours = {Trainer._step.__code__, Trainer._start_epoch.__code__, Trainer._end_epoch.__code__}
        codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
        return bool(self.config.callbacks) and not codes & ours

    # ------------------------------------------------------------ one step

    def _start_epoch(self, engine: Engine) -> None:
        if self.stopping:  # asked for before the engine ran, which forgets it when it starts
            engine.terminate()
        order = permutation(len(self.images), self.train_config.seed, engine.state.epoch - 1)
        self.order = torch.split(order.to(self.device), self.train_config.batch_size)

    def _step(self, _engine: Engine, _batch: None) -> Terms:
        done = self.outcome.steps
        index = self.order[done % self.epoch_length]
        self.noise.reseed(done)
        batch = self.images.batch(index)
        try:
            step = Step(done, self.total_steps, len(self.images))
            terms = take_step(self.trainee, self.optimizer, batch, step)
        except Exception:  # `with blame` around every step would cost 2 µs each
            with blame(f"step {done + 1}", self.config.model.entry, self.config.loss.entry):
                raise
        self.history.add(terms, len(index))
        self.outcome.images += len(index)
        self.outcome.steps = done + 1
        if (done + 1) % self.train_config.log_every == 0:
            self._read_history()
        self.progress.tick(done + 1)
        return terms

    def _read_history(self) -> None:
        step = self.outcome.steps
        with blame("reading the loss", self.config.loss.entry):
            means = self.history.read(step)
        if means:
            self.progress.loss = means["loss"]
            lr = self.optimizer.param_groups[0]["lr"]
            scalars = {f"step/{name}": value for name, value in means.items()}
            self.board.scalars({**scalars, "step/lr": lr}, step)

    # ------------------------------------------------------------ one epoch

    def _end_epoch(self, engine: Engine) -> None:
        self.outcome.epochs = engine.state.epoch
        self._close_epoch(self._splits_to_evaluate(engine.state.epoch))

    def _close_epoch(self, splits: list[str]) -> None:
        """Measure, log, save; for an epoch that a callback cut short too."""
        self._read_history()
        self._lap()
        self.outcome.metrics["train"] = self.history.close_epoch() or self.outcome.metrics["train"]
        for split in splits:
            self._measure(split)
        self._since = time.perf_counter()  # evaluation is not training time
        figures = {split: self.outcome.metrics[split] for split in ("train", *splits)}
        epoch = math.ceil(self.outcome.steps / self.epoch_length)
        self._log_epoch(epoch, figures)
        best = figures.get("validation", {}).get("loss", math.nan) < self.best_score  # no for NaN
        if best:
            self.best_score = figures["validation"]["loss"]
        self._save(best=best)
        self.progress.epoch(epoch, figures)
        self._lap()

    def _measure(self, split: str) -> None:
        """Raises RunFailed where the last step has ruined the weights, which its loss, taken
        before it, does not show."""
        # terms weighted as at the end: during a warm-up early weights are not the best
        end = Step(self.total_steps, self.total_steps, len(self.images))
        figures = self.evaluator.run(split, end)
        if not math.isfinite(loss := figures["loss"]):
            raise RunFailed(
                f"the loss on the {split} split became {loss} after step {self.outcome.steps}",
                remedy="a smaller --lr",
            )
        self.outcome.metrics[split] = figures

    def _splits_to_evaluate(self, epoch: int) -> list[str]:
        every = self.train_config.evaluate_every
        last = epoch == self.train_config.epochs
        splits = ["validation"] if "validation" in self.data.splits else []
        if last or (every and epoch % every == 0):
            splits.append("test")
        return splits

    def _log_epoch(self, epoch: int, figures: dict[str, dict[str, float]]) -> None:
        step = self.outcome.steps
        self._lap()
        rate = self.outcome.images_per_second
        speed = {"train/images_per_second": rate, "train/epoch": epoch}
        self.board.scalars({**flat_metrics(figures), **speed}, step)
        self._log_reconstructions(step)
        self.record({"epoch": epoch, "step": step, "images_per_second": rate, **figures})

    def _log_reconstructions(self, step: int) -> None:
        provided = self.config.model.entry.spec.provides
        if not {"encode", "decode"} <= provided or not self.data.spec.drawable:
            return
        images = self.data.split("validation" if "validation" in self.data.splits else "test")
        shown = images.batch_at(list(range(min(SHOWN, len(images))))).x
        model: Any = self.trainee.model
        model.eval()
        with torch.no_grad():
            recon = model.decode(model.encode(shown).mode())
        model.train()
        self.board.picture("reconstructions", pair_sheet(shown, recon), step)

    # ------------------------------------------------------------ state and time

    def _save(self, *, best: bool = False) -> None:
        step = self.outcome.steps
        if step == self.saved_step:
            return
        groups = {
            "model": self.trainee.model.state_dict(),
            "loss": self.trainee.loss.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        self.store.save(
            f"step-{step:08d}",
            {name: tensors for name, tensors in groups.items() if tensors},
            {
                "step": step,
                "epoch": self.outcome.epochs,
                "total_steps": self.total_steps,
                "best_score": self.best_score if math.isfinite(self.best_score) else None,
                "seed": self.train_config.seed,
                "threads": torch.get_num_threads(),
            },
            best=best,
        )
        self.saved_step = step

    def _lap(self) -> None:
        now = time.perf_counter()
        self.outcome.seconds += now - self._since
        self._since = now


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state by `parameter.key`, numbers as 0-d tensors."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


@contextmanager
def stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C lets the step finish and saves; the second one stops at once."""
    previous = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or previous in (signal.SIG_IGN, None):
        yield  # only the main thread may set handlers; a job that ignores Ctrl-C goes on doing so
        return

    def request_stop(_signum: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, previous)
        trainer.stop()

    signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
