"""Progress for people: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from typing import TextIO

BAR_INTERVAL = 0.2  # seconds; a redraw costs more than a small training step
LINE_INTERVAL = 5.0

log = logging.getLogger("latentforge")


class Progress:
    """Shows epoch, loss, images/s and time left on `stream`; None shows nothing."""

    def __init__(self, stream: TextIO | None, *, epochs: int, steps: int, batch_size: int) -> None:
        self.stream = stream
        self.bar = bool(stream and stream.isatty())
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size  # steps: of an epoch
        self.interval = BAR_INTERVAL if self.bar else LINE_INTERVAL
        self.started = self.shown = time.monotonic()
        self.loss: float | None = None  # not read from the device yet
        self.first = 0  # steps that were made before, in a run that goes on

    def tick(self, step: int) -> None:
        """Called after every step; draws only when the interval has passed."""
        if self.stream is None:
            return
        now = time.monotonic()
        if now - self.shown < self.interval:
            return
        self.shown = now
        self._write(self._line(step, now - self.started), end="" if self.bar else "\n")

    def epoch(self, epoch: int, figures: Mapping[str, Mapping[str, float]]) -> None:
        """One line with the figures of an epoch; without a terminal only now and then."""
        if self.stream is None:
            return
        now = time.monotonic()
        if not self.bar and epoch not in (1, self.epochs) and now - self.shown < self.interval:
            return
        self.shown = now
        parts = [
            f"{split} {_short(_comparable(values, figures['train']))}"
            for split, values in figures.items()
        ]
        self._write(f"epoch {epoch}/{self.epochs}  " + "  |  ".join(parts), end="\n")

    def note(self, text: str) -> None:
        """A line of its own."""
        if self.stream is not None:
            self._write(text, end="\n")

    def warn(self, text: str) -> None:
        """A line of its own, which quiet does not hide."""
        if self.stream is not None:
            self._write(text, end="\n")
        else:
            log.warning("%s", text.removeprefix("warning: "))

    def close(self) -> None:
        """Leave the terminal's last line empty."""
        if self.bar:
            self._write("", end="")

    def _line(self, step: int, seconds: float) -> str:
        total = self.epochs * self.steps
        made = step - self.first
        rate = made * self.batch_size / seconds
        left = (total - step) * seconds / made
        loss = "" if self.loss is None else f"loss {self.loss:.4g}  "
        text = (
            f"epoch {min((step - 1) // self.steps + 1, self.epochs)}/{self.epochs}  "
            f"{100 * step // total:3d} %  {loss}{rate:,.0f} images/s  "
            f"{int(left) // 60}:{int(left) % 60:02d} left"
        )
        if not self.bar:
            return text
        filled = 20 * step // total
        line = f"[{'#' * filled}{'.' * (20 - filled)}] {text}"
        return line[: shutil.get_terminal_size().columns - 1]  # a wrapped line cannot be redrawn

    def _write(self, text: str, end: str) -> None:
        assert self.stream is not None
        clear = "\r\x1b[K" if self.bar else ""  # to the line's start, and erase it
        self.stream.write(clear + text + end)
        self.stream.flush()


def _comparable(values: Mapping[str, float], train: Mapping[str, float]) -> Mapping[str, float]:
    """The figures that training has too, where these are more than the loss: a line holds few."""
    values = {name: value for name, value in values.items() if not name.endswith("_weight")}
    both = {name: value for name, value in values.items() if name in train}
    return both if len(both) > 1 else values


def _short(values: Mapping[str, float]) -> str:
    """The figures, without a loss that is all of one term and so said twice."""
    shown = {name: f"{value:.4g}" for name, value in values.items()}
    rest = {name: text for name, text in shown.items() if name != "loss"}
    kept = rest if shown.get("loss") in rest.values() else shown
    return " ".join(f"{name} {text}" for name, text in kept.items())
