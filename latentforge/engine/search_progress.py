"""What one sees of a latent search while it runs: a line for people, a curve in TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from ignite.engine import Engine, Events

from latentforge.engine.progress import BAR_INTERVAL, LINE_INTERVAL
from latentforge.runs.tensorboard import Board


class SearchWatch:
    """Attached to the engine of a search: keeps the share of satisfied requests after each round,
    and writes to `stream`, if there is one, a line every few seconds."""

    def __init__(self, stream: TextIO | None, tag: str) -> None:
        self.stream, self.tag = stream, tag
        self.curve: list[tuple[int, float]] = []
        self.bar = bool(stream and stream.isatty())
        self.shown, self.told = time.monotonic(), False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.tick)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def tick(self, engine: Engine) -> None:
        now = time.monotonic()
        if self.stream is None or now - self.shown < (BAR_INTERVAL if self.bar else LINE_INTERVAL):
            return
        self.shown = now
        self.tell(engine)

    def tell(self, engine: Engine) -> None:
        assert self.stream is not None
        state, self.told = engine.state, True
        text = (
            f"search: start {state.epoch} of {state.max_epochs}, step {state.iteration}, "
            f"{100 * state.metrics['satisfied']:.1f} % of the requests met"
        )
        self.stream.write(f"\r\x1b[K{text}" if self.bar else f"{text}\n")
        self.stream.flush()

    def record(self, engine: Engine) -> None:
        self.curve.append((engine.state.iteration, engine.state.metrics["satisfied"]))

    def write(self, folder: Path) -> None:
        """The curve as an events file of TensorBoard, if there was a search."""
        if not self.curve:
            return
        board = Board(folder)
        for step, share in self.curve:
            board.scalars({f"{self.tag}/satisfied": share}, step)
        board.close()

    def close(self, engine: Engine) -> None:
        if self.told and not self.bar:
            self.tell(engine)
        if self.stream is not None and self.bar:  # leave the terminal's last line empty
            self.stream.write("\r\x1b[K")
            self.stream.flush()
