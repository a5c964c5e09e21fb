"""Trainer: the training loop of one run, an Ignite engine around `train_step`.

At the end of each epoch it evaluates, logs and saves a checkpoint. In all output, steps, epochs and
images are counted from 1; `Step.index` counts from 0.
"""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import torch
from ignite.engine import Engine, Events

from latentforge.config.schema import Component, RunConfig
from latentforge.contracts import Engines, Terms, at_once
from latentforge.data.splits import DataSplits
from latentforge.engine.best_checkpoint import BestCheckpoint
from latentforge.engine.build import build_step_runner
from latentforge.engine.checkpoint_state import callback_states, capture, plugin_versions
from latentforge.engine.diagnostics import advise_on_collapse, find_problems
from latentforge.engine.evaluator import BATCH, Evaluator, quiet_engine
from latentforge.engine.finite import check_finite
from latentforge.engine.loss_log import NotFinite
from latentforge.engine.progress import Progress
from latentforge.engine.step import StepRunner, Trainee
from latentforge.engine.training_state import TrainingResult, TrainingState
from latentforge.errors import RunFailed
from latentforge.io.paths import replace_nonfinite
from latentforge.plugins.attribution import call_component
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.runs.data_description import describe_spec
from latentforge.runs.tensorboard import Board, flatten_metrics, flatten_per_dim, tile_pairs
from latentforge.runtime import torchrun
from latentforge.runtime.device import deterministic_kernels
from latentforge.runtime.signals import StoppedWaiting, stop_on_signals
from latentforge.seeding import Noise

if TYPE_CHECKING:
    from latentforge.runtime.process_group import ProcessGroup

RECONSTRUCTIONS = 8  # images in the reconstructions of each epoch
CHECK_AFTER = 3, 300  # epochs and steps before the metrics are checked: a KL near 0 may still grow
STOPPED_BY_CALLBACK = "a callback ended the training"


class Trainer:
    """Trains `trainee` on `data["train"]`, both on `device`. `record` stores a line of metrics;
    `stream`, if given, shows the progress. `protocol` is the version of the evaluation protocol."""

    build_steps: ClassVar[Callable[..., StepRunner]] = staticmethod(build_step_runner)

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
        result: TrainingResult,
        protocol: int,
        processes: ProcessGroup | None = None,
    ) -> None:
        train = config.train
        self.data, self.config, self.train_config = data, config, train
        self.store, self.board, self.record = store, board, record
        self.images, self.processes = data.split("train"), processes
        self.steps = self.build_steps(trainee, self.images, config, device, processes)
        self.result = result  # the caller reads it even if fit raises
        self.state = TrainingState(self.steps, BestCheckpoint(train, monitor.entry), result)
        self.progress = Progress(
            stream, epochs=train.epochs, steps=self.steps.epoch_length, batch_size=train.batch_size
        )
        self.stopping, self._closing, self._saved_at = False, False, time.monotonic()
        self._since = 0.0  # start of the current interval of training time
        self._epoch_start = (0, 0.0)  # images and seconds at the start of the epoch, or of a resume
        evaluated = self.steps.ema.trainee if self.steps.ema else trainee
        self.evaluator = Evaluator(
            evaluated.model,
            evaluated.loss,
            data,
            measures,
            seed=train.seed,
            device=device,
            version=protocol,
            provides=config.model.entry.provides,
        )
        self.state.protocol = self.evaluator.protocol
        self.engine = self._build_engine(trainee)

    def _build_engine(self, trainee: Trainee) -> Engine:
        engine = quiet_engine(self._step)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        events = (Events.EPOCH_STARTED, Events.ITERATION_STARTED, Events.EPOCH_COMPLETED)
        if self.config.callbacks:  # their random numbers also depend only on the step
            noise = Noise(self.steps.device, "callbacks", self.train_config.seed)
            for event in events:
                engine.add_event_handler(event, lambda: noise.reseed(self.result.steps))
        engines = Engines(
            trainer=engine,
            evaluator=self.evaluator.engine,
            model=trainee.model,
            loss=trainee.loss,
            optimizer=self.steps.optimizer,
            log=lambda name, value: self.board.add_scalars({name: value}, engine.state.iteration),
        )

        def attach(callback: Component) -> Any:
            instance = callback.entry.spec.build(callback.options)
            instance.attach(engines)
            return instance

        for callback in self.config.callbacks:
            instance = callback.call(f"callback {callback.name!r}", attach, callback)
            self.state.callbacks.append((callback, instance))
        # Added after the callbacks' handlers, so that a checkpoint contains their changes.
        if self.processes and self.config.callbacks:
            for event in (*events, Events.ITERATION_COMPLETED):
                engine.add_event_handler(event, self._sync_termination)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        if self.processes and self.config.callbacks:  # they may end training in evaluator events
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._sync_termination)
        if self.train_config.checkpoint_every or self.train_config.checkpoint_seconds:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_when_due)
        return engine

    def fit(self) -> None:
        """Train to the end or until a signal; the result's status is "done" or "interrupted"."""
        done = self.progress.first = self.result.steps
        length, epochs = self.steps.epoch_length, self.train_config.epochs
        if done:  # resumed, perhaps in the middle of an epoch
            position = {"iteration": done, "epoch_length": length, "max_epochs": epochs}
            self.engine.load_state_dict(position)
        if self.state.callbacks:
            callback_states(self.state)  # before training, report a state that cannot be stored
        with closing(self.progress), deterministic_kernels():
            self._run_engine()
            self.result.status = "done"
            if self.result.epochs < epochs or (self.stopping and self._closing):
                self._finish_early()
            for finding in self.state.warnings.passed():
                self.progress.note(str(finding))

    def _run_engine(self) -> None:
        self.steps.trainee.train()
        self._since = time.perf_counter()
        self._epoch_start = (self.result.images, self.result.seconds)
        try:
            with nullcontext() if self.processes else stop_on_signals(self.stop):
                done, length = self.result.steps, self.steps.epoch_length
                if done and done % length == 0 and self.state.evaluated_step != done:
                    # stopped between the last step of an epoch and its evaluation
                    self.engine.fire_event(Events.STARTED)
                    self.engine.fire_event(Events.EPOCH_COMPLETED)
                if done < self.steps.total_steps and not self.result.stopped:
                    self.engine.run(max_epochs=self.train_config.epochs, epoch_length=length)
        except StoppedWaiting:
            if not self.stopping:
                raise
        except BaseException as error:  # also SystemExit, which a callback may raise
            if not self._raised_by_callback(error):
                raise
            call_component("a callback", [c.entry for c in self.config.callbacks], reraise, error)
        finally:
            self.steps.close()
            self._add_time()

    def stop(self, number: int = signal.SIGINT) -> None:
        """End the training after the current step, with a checkpoint. Safe in a signal handler."""
        self.stopping, self.result.signal = True, number
        self.engine.terminate()

    def _finish_early(self) -> None:
        """Save a checkpoint after a signal, or close an epoch that a callback ended early."""
        if self.stopping:
            self.result.status = "interrupted"
            if not self._closing:  # otherwise half of the epoch's results are recorded
                self._save()
        elif self.state.evaluated_step != self.result.steps:  # stopped in the middle of an epoch
            self.result.stopped = STOPPED_BY_CALLBACK
            self._close_epoch(last=True)

    def _raised_by_callback(self, error: BaseException) -> bool:
        """Whether a callback raised the error: no handler of Trainer is in its traceback."""
        handlers = (Trainer._step, Trainer._start_epoch, Trainer._end_epoch, Trainer._save_when_due)
        own_codes = {function.__code__ for function in handlers}
        codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
        return bool(self.config.callbacks) and not codes & own_codes

    # ------------------------------------------------------------ one step

    def _start_epoch(self, engine: Engine) -> None:
        if self.stopping:  # a signal came before `run`, which resets the request
            engine.terminate()
        self.steps.start_epoch(engine.state.epoch - 1)

    def _step(self, _engine: Engine, _batch: None) -> Terms:
        done = self.result.steps
        terms = self.steps.run(done)
        self.result.images += len(self.steps.index(done))
        self.result.steps = done + 1
        if self.processes and self.processes.signal_received:
            self.stop(self.processes.signal_received)
        if self.steps.gate.blocked:
            self._fetch_log()
        if (done + 1) % self.train_config.log_every == 0:
            self._read_log()
        self.progress.tick(done + 1)
        return terms

    def _fetch_log(self) -> None:
        """Fetch the loss log. Raises RunFailed, with details, if a value is not finite."""
        step = self.result.steps
        try:
            self.config.loss.call("reading the loss", self.steps.log.fetch, step)
        except NotFinite as error:
            error.details = tuple(self.steps.explain_failure(error.step))
            raise
        if self.steps.gate.closed():
            raise RunFailed(
                f"the gradient became NaN or infinite by step {step}, although the loss was finite",
                details=self.steps.explain_failure(step) if self.steps.gate.wait else (),
                hint="a smaller --lr",
            )

    def _read_log(self) -> None:
        self._fetch_log()
        if means := self.steps.log.read():
            self.progress.loss = means["loss"]
            scalars = {f"step/{name}": value for name, value in means.items()}
            self.board.add_scalars({**scalars, "step/lr": self.steps.lr()}, self.result.steps)

    def _sync_termination(self, engine: Engine) -> None:
        """End the training in all processes if a callback ended it in one."""
        if self.processes and self.processes.any(bool(engine.should_terminate), self._position()):
            engine.terminate()

    def _position(self) -> str:
        return f"after step {self.result.steps}"

    # ------------------------------------------------------------ one epoch

    def _end_epoch(self, engine: Engine) -> None:
        self.result.epochs = engine.state.epoch
        # a callback has stopped training before this handler; _finish_early handles a signal
        stopped = bool(engine.should_terminate) and not self.stopping
        last = engine.state.epoch == self.train_config.epochs
        if stopped and not last:
            self.result.stopped = STOPPED_BY_CALLBACK
        self._close_epoch(last=stopped or last)

    def _close_epoch(self, *, last: bool) -> None:
        """Evaluate, log and save, also for an epoch that a callback ended early."""
        self._closing = True
        self._read_log()
        self._add_time()
        epoch = math.ceil(self.result.steps / self.steps.epoch_length)
        means, per_dim = self.steps.log.close_epoch()
        if self.processes:  # a process without images in a batch does not know its loss weights
            means, per_dim = self.processes.broadcast([means, per_dim], self._position())
        self.result.metrics["train"], self.result.per_dim = means, per_dim
        metrics, best = {"train": means}, False
        if "validation" in self.data.splits:
            metrics["validation"] = self._evaluate("validation")
            self.state.validation_losses.append(metrics["validation"]["loss"])
            best = self._update_best(epoch)
            last = last or self.state.best.exhausted
        every = self.train_config.evaluate_every
        if last or (every and epoch % every == 0):
            metrics["test"] = self._evaluate("test")
        self._since = time.perf_counter()  # evaluation is not training time
        self._log_epoch(epoch, metrics)
        self.progress.epoch(epoch, metrics)
        self._warn(epoch, last=last)
        self.state.evaluated_step = self.result.steps  # set before the checkpoint stores it
        self._closing = False
        self._save(best=best)
        self._add_time()

    def _warn(self, epoch: int, *, last: bool) -> None:
        """Report each new warning once, after enough epochs and steps, and update the findings."""
        if not last and (epoch < CHECK_AFTER[0] or self.result.steps < CHECK_AFTER[1]):
            return
        warnings, held_out = self.state.warnings, self.state.validation_losses
        train, trainee = self._sample_loss() if held_out else None, self.steps.trainee
        latent, loss = getattr(trainee.model, "latent", None), trainee.loss
        advice = advise_on_collapse(self.config.loss.options, getattr(loss, "likelihood", None))
        found = find_problems(self.result.per_dim, train, held_out, latent, advice)
        for finding in warnings.update(epoch, found):
            self.progress.warn(str(finding))
        previous = [f for f in self.result.findings if f.check not in warnings.seen]
        self.result.findings[:] = [*previous, *warnings.findings()]

    def _sample_loss(self) -> float:
        """The loss of a sample of the training images, computed like the validation loss."""
        limit = at_once(self.data.spec, BATCH)
        indices = torch.arange(min(limit, len(self.images)), device=self.steps.device)
        batch = self.images.batch(indices * len(self.images) // len(indices))
        return self.evaluator.compute_loss(batch, self.steps.final_step())

    def _update_best(self, epoch: int) -> bool:
        """Return whether the epoch is the best; end the training if the patience is exhausted."""
        best = self.state.best
        improved = best.update(self.result.metrics["validation"], epoch)
        if best.score is not None:
            self.result.best = {"epoch": best.epoch, f"validation/{best.metric}": best.score}
        last = epoch == self.train_config.epochs or self.result.stopped
        if best.exhausted and not last:
            self.result.stopped = best.reason()
            self.progress.note(f"stopped after epoch {epoch}: {self.result.stopped}")
            self.engine.terminate()
        return improved

    def _evaluate(self, split: str) -> dict[str, float]:
        """Evaluate a split. Raises RunFailed if its loss is not finite: the last update may have
        broken the weights, and the training loss of that step was computed before the update."""
        metrics = self.evaluator.run(split, self.steps.final_step())
        if self.processes:  # each evaluates all images; one shared result gives equal decisions
            metrics = self.processes.broadcast(metrics, self._position())
        if not math.isfinite(loss := metrics["loss"]):
            raise RunFailed(
                f"the loss on the {split} split became {loss} after step {self.result.steps}",
                hint="a smaller --lr",
            )
        self.result.metrics[split] = metrics
        return metrics

    def _log_epoch(self, epoch: int, metrics: dict[str, dict[str, float]]) -> None:
        step, per_dim = self.result.steps, self.result.per_dim
        self._add_time()
        images, seconds = self._epoch_start
        rate = (self.result.images - images) / max(self.result.seconds - seconds, 1e-9)
        self._epoch_start = (self.result.images, self.result.seconds)
        speed = {"train/images_per_second": rate, "train/epoch": epoch}
        self.board.add_scalars(flatten_metrics(metrics) | speed | flatten_per_dim(per_dim), step)
        if epoch == 1:
            self.board.add_charts(metrics)
        provided = self.config.model.entry.provides
        spec = self.data.spec
        if {"encode", "decode"} <= provided and (spec.drawable or spec.drawn_as_curves):
            pair = self.evaluator.reconstructions(RECONSTRUCTIONS)
            self.board.add_image("reconstructions", tile_pairs(*pair), step)
        line = {"epoch": epoch, "step": step, "images_per_second": rate, **metrics}
        self.record({**line, "per_dim": per_dim} if per_dim else line)

    # ------------------------------------------------------------ checkpoints and time

    def _save_when_due(self) -> None:
        """Save a checkpoint in the middle of an epoch, if one is due; its end always saves one."""
        step, every = self.result.steps, self.train_config.checkpoint_every
        seconds = self.train_config.checkpoint_seconds
        waited = time.monotonic() - self._saved_at
        due = (every and step % every == 0) or (seconds and waited >= seconds)
        if due and step % self.steps.epoch_length:
            self._save()

    def _save(self, *, best: bool = False) -> None:
        step = self.result.steps
        if step == self.state.saved_step:
            return
        self._fetch_log()
        check_finite(self.steps.trainee, step)
        self._add_time()
        if not self.processes or self.processes.is_first:
            environment = {
                "total_steps": self.steps.total_steps,
                "threads": torch.get_num_threads(),
                "processes": torchrun.world_size(),
                "device": self.steps.device.type,
                "torch": torch.__version__,
                "ways": self.steps.describe(),
                "plugins": plugin_versions(self.config),
                "config": replace_nonfinite(self.config.as_dict()),
                "data": describe_spec(self.data.spec),
                "events": self.board.file_sizes(),
            }
            self.store.save(f"step-{step:08d}", *capture(self.state, environment), best=best)
        self.state.saved_step, self._saved_at = step, time.monotonic()

    def _add_time(self) -> None:
        now = time.perf_counter()
        self.result.seconds += now - self._since
        self._since = now


def reraise(error: BaseException) -> None:
    raise error
