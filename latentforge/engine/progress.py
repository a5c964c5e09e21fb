"""Progress display of training or a latent search: a bar on a terminal or in a notebook, and a line
every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ignite.engine import Engine, Events

from latentforge.runs.tensorboard import Board
from latentforge.runtime.python_form import python_form
from latentforge.runtime.stdout import escape_controls

BAR_INTERVAL = 0.2  # seconds; a redraw costs more than a small training step
LINE_INTERVAL = 5.0

log = logging.getLogger("latentforge")


class Display:
    """Shows progress on `stream`, as a bar or as lines. Shows nothing if `stream` is None."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.draws_bar = stream is not None and (stream.isatty() or "ipykernel" in sys.modules)
        self.interval = BAR_INTERVAL if self.draws_bar else LINE_INTERVAL
        self.last_shown = time.monotonic()
        self.bar: Any = None  # the tqdm bar while it is shown

    def show(self, text: str, done: int, total: int) -> None:
        """Redraw the bar, or write a line."""
        text = escape_controls(text)
        self.last_shown = time.monotonic()
        if not self.draws_bar:
            self.note(text)
            return
        if self.bar is None:
            from tqdm.auto import tqdm

            options = {"bar_format": "|{bar}| {desc}", "dynamic_ncols": True, "leave": False}
            # no monitor thread, because the process may fork
            without_thread = type("Bar", (tqdm,), {"monitor_interval": 0})
            self.bar = without_thread(desc=text, total=total, file=self.stream, **options)
        self.bar.n = done
        self.bar.set_description_str(text)

    def note(self, text: str) -> None:
        """Write a separate line."""
        text = escape_controls(text)
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        elif self.stream is not None:
            self.stream.write(f"{text}\n")
            self.stream.flush()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Progress(Display):
    """Shows epoch, loss, images/s and remaining time of a run."""

    def __init__(self, stream: TextIO | None, *, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__(stream)
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size  # steps: per epoch
        self.started = self.last_shown
        self.loss: float | None = None  # None: not read from the device yet
        self.first = 0  # steps done before the run was resumed

    def tick(self, step: int) -> None:
        """Update the display after a step, if the interval has passed."""
        if self.stream is not None and time.monotonic() - self.last_shown >= self.interval:
            self.show(self._line(step), step, self.epochs * self.steps)

    def epoch(self, epoch: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Write the metrics of an epoch; without a bar, at most one line per interval, except
        for the first and the last epoch."""
        now = time.monotonic()
        recent = now - self.last_shown < self.interval
        if recent and not self.draws_bar and epoch not in (1, self.epochs):
            return
        self.last_shown = now
        train = metrics["train"]
        parts = [f"{split} {_short(values, train)}" for split, values in metrics.items()]
        self.note(f"epoch {epoch}/{self.epochs}  " + "  |  ".join(parts))

    def warn(self, text: str) -> None:
        """Write a warning as a line, or log it if there is no stream."""
        text = python_form(text)
        if self.stream is not None:
            self.note(text)
        else:
            log.warning("%s", text.removeprefix("warning: "), extra={"diagnosis": True})

    def _line(self, step: int) -> str:
        total, steps = self.epochs * self.steps, step - self.first
        seconds = time.monotonic() - self.started
        remaining = int((total - step) * seconds / steps)
        loss = "" if self.loss is None else f"loss {self.loss:.4g}  "
        return (
            f"epoch {min((step - 1) // self.steps + 1, self.epochs)}/{self.epochs}  "
            f"{100 * step // total:3d} %  {loss}{steps * self.batch_size / seconds:,.0f} images/s  "
            f"{remaining // 60}:{remaining % 60:02d} left"
        )


def _short(values: Mapping[str, float], train: Mapping[str, float]) -> str:
    """Format the metrics that training also has, or all with their standard errors if it has fewer
    than two of them, to keep the line short; without loss weights, and without the loss if it
    equals a term."""
    errors = {f"{name}_se" for name in values} & values.keys()
    texts = {
        name: f"{value:.4g}"
        for name, value in values.items()
        if not name.endswith("_weight") and name not in errors
    }
    shared = {name: text for name, text in texts.items() if name in train}
    is_short = len(shared) > 1
    texts = shared if is_short else texts
    rest = {name: text for name, text in texts.items() if name != "loss"}
    shown = dict(rest if texts.get("loss") in rest.values() else texts)
    for name in () if is_short else shown:
        if f"{name}_se" in errors:
            shown[name] += f" ± {values[f'{name}_se']:.2g}"
    return " ".join(f"{name} {text}" for name, text in shown.items())


class SearchProgress(Display):
    """Shows the fraction of satisfied requests during a search, and records it after each round for
    a curve in TensorBoard."""

    def __init__(self, stream: TextIO | None, tag: str) -> None:
        super().__init__(stream)
        self.tag = tag
        self.curve: list[tuple[int, float]] = []
        self.reported = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.tick)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def tick(self, engine: Engine) -> None:
        if self.stream is not None and time.monotonic() - self.last_shown >= self.interval:
            self.report(engine)

    def report(self, engine: Engine) -> None:
        state, self.reported = engine.state, True
        text = (
            f"search: start {state.epoch} of {state.max_epochs}, step {state.iteration}, "
            f"{100 * state.metrics['satisfied']:.1f} % of the requests satisfied"
        )
        self.show(text, state.iteration, (state.max_epochs or 1) * (state.epoch_length or 1))

    def record(self, engine: Engine) -> None:
        self.curve.append((engine.state.iteration, engine.state.metrics["satisfied"]))

    def finish(self, engine: Engine) -> None:
        if self.reported and not self.draws_bar:
            self.report(engine)
        self.close()

    def write(self, folder: Path) -> None:
        """Write the curve as a TensorBoard event file, if there was a search."""
        if not self.curve:
            return
        board = Board(folder)
        for step, share in self.curve:
            board.add_scalars({f"{self.tag}/satisfied": share}, step)
        board.close()
