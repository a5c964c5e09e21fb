"""Progress on a terminal, in a notebook and elsewhere."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import termios
import threading
from types import ModuleType

import pytest
from ignite.engine import Engine

from latentforge.engine.progress import Progress, SearchProgress


class Terminal(io.StringIO):
    """A stream to a terminal of a given size."""

    def __init__(self, columns: int = 120) -> None:
        super().__init__()
        self.pair = pty.openpty()
        termios.tcsetwinsize(self.pair[1], (24, columns))

    def fileno(self) -> int:
        return self.pair[1]

    def isatty(self) -> bool:
        return os.isatty(self.fileno())

    def close(self) -> None:
        if not self.closed:
            for end in self.pair:
                os.close(end)
        super().close()


def bars(text: str) -> list[str]:
    """Every bar that was drawn."""
    return [line.rstrip() for line in re.split("[\r\n]", text) if line.startswith("|")]


def screen(text: str) -> list[str]:
    """The lines that a terminal shows at the end."""
    assert "\x1b" not in text
    lines = []
    for line in text.split("\n"):
        cells: list[str] = []
        for drawn in line.split("\r"):
            cells[: len(drawn)] = drawn
        lines.append("".join(cells).rstrip())
    return lines


def render_progress(stream, interval: float = 0.0) -> str:
    progress = Progress(stream, epochs=2, steps=10, batch_size=64)
    progress.interval = interval
    progress.loss = 101.25
    for step in range(1, 21):
        progress.tick(step)
        if step % 10 == 0:
            progress.epoch(step // 10, {"train": {"loss": 99.5}, "test": {"recon": 98.0}})
        if step == 15:
            progress.note("a note")
            progress.warn("warning: a warning")
    progress.close()
    return stream.getvalue()


def test_a_terminal_shows_a_bar_that_is_erased_at_the_end():
    text = render_progress(Terminal())
    assert screen(text) == [
        "epoch 1/2  train loss 99.5  |  test recon 98",
        "a note",
        "warning: a warning",
        "epoch 2/2  train loss 99.5  |  test recon 98",
        "",
    ]
    drawn = bars(text)
    assert len(drawn) >= 20
    [half] = {bar for bar in drawn if "epoch 1/2   50 %" in bar}
    filled, rest = re.fullmatch(r"\|(#+\d?)( *)\| epoch .* left", half).groups()
    assert abs(len(filled) - len(rest)) <= 1
    assert re.search(r"  loss 101.2  [\d,]+ images/s  \d+:\d\d left$", half)
    assert {len(bar) for bar in drawn} == {119}  # a line of all columns may wrap


def test_other_streams_get_plain_lines():
    text = render_progress(io.StringIO())
    lines = text.splitlines()
    assert "\r" not in text
    assert len(lines) == 24  # 20 steps, two epochs, the note and the warning
    assert lines[0].startswith("epoch 1/2    5 %  loss 101.2  ")
    assert {"a note", "warning: a warning"} < set(lines)
    assert lines[-1] == "epoch 2/2  train loss 99.5  |  test recon 98"


def test_a_notebook_shows_a_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert len(bars(render_progress(io.StringIO()))) >= 20


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_only_epochs_and_notes_are_shown_before_the_interval(stream):
    assert render_progress(stream(), interval=3600.0).splitlines() == [
        "epoch 1/2  train loss 99.5  |  test recon 98",
        "a note",
        "warning: a warning",
        "epoch 2/2  train loss 99.5  |  test recon 98",
    ]


def test_a_bar_is_redrawn_every_0_2_s_and_lines_every_5_s():
    intervals = {
        kind: Progress(kind(), epochs=1, steps=1, batch_size=1).interval
        for kind in (Terminal, io.StringIO)
    }
    assert intervals == {Terminal: 0.2, io.StringIO: 5.0}


def test_quiet_shows_only_warnings(capsys, caplog):
    progress = Progress(None, epochs=1, steps=1, batch_size=1)
    progress.last_shown -= 3600
    progress.tick(1)
    progress.epoch(1, {"train": {"loss": 1.0}})
    progress.note("a note")
    progress.close()
    assert capsys.readouterr() == ("", "")
    with caplog.at_level(logging.WARNING, "latentforge"):
        progress.warn("warning: something")
    assert caplog.messages == ["something"]


def test_a_bar_fits_into_a_narrow_terminal():
    drawn = bars(render_progress(Terminal(columns=40)))
    assert len(drawn) >= 20
    assert max(map(len, drawn)) == 39
    assert all("| epoch " in bar for bar in drawn)


def test_a_bar_starts_no_thread():
    before = set(threading.enumerate())
    progress = Progress(Terminal(), epochs=2, steps=10, batch_size=64)
    progress.interval = 0.0
    progress.tick(1)
    assert set(threading.enumerate()) == before
    progress.close()


def render_search(stream, interval: float = 0.0) -> tuple[str, SearchProgress]:
    """The output of a search of two rounds of three steps that satisfies half of its requests."""
    watch = SearchProgress(stream, "guided")
    watch.interval = interval

    def step(engine, _):
        engine.state.metrics["satisfied"] = engine.state.iteration / 12

    engine = Engine(step)
    watch.attach(engine)
    engine.run(max_epochs=2, epoch_length=3)
    return stream.getvalue(), watch


def test_a_search_on_a_terminal_shows_a_bar_that_is_erased():
    text, watch = render_search(Terminal())
    assert screen(text) == [""]
    assert bars(text)[-1].endswith(
        "| search: start 2 of 2, step 6, 50.0 % of the requests satisfied"
    )
    assert watch.curve == [(3, 0.25), (6, 0.5)]


def test_a_search_on_another_stream_prints_lines_to_the_end():
    text, _ = render_search(io.StringIO())
    lines = text.splitlines()
    assert lines[0] == "search: start 1 of 2, step 1, 8.3 % of the requests satisfied"
    assert lines[-1] == "search: start 2 of 2, step 6, 50.0 % of the requests satisfied"
    assert len(lines) == 7


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_short_search_shows_nothing(stream):
    assert render_search(stream(), interval=3600.0)[0] == ""


def test_an_epoch_line_shows_the_metrics_of_training_once():
    stream = io.StringIO()
    progress = Progress(stream, epochs=1, steps=1, batch_size=1)
    one = {"loss": 99.5001, "recon": 99.5}
    three = {"loss": 105.0, "recon": 99.5, "kl": 5.5}
    many = {"active_units": 4, **three, "elbo": -105.0}
    weighted = {**three, "kl_weight": 0.5}
    other = {"loss": 0.5, "accuracy": 0.9}
    progress.epoch(1, {"train": one, "test": one})
    progress.epoch(1, {"train": weighted, "test": many})
    progress.epoch(1, {"train": {"loss": 0.4, "cross_entropy": 0.4}, "test": other})
    sampled = {"loss": 5.5, "loss_se": 0.789, "mse": 0.1}
    progress.epoch(1, {"train": {"loss": 6.0, "error": 6.0}, "test": sampled})
    assert stream.getvalue().splitlines() == [
        "epoch 1/1  train recon 99.5  |  test recon 99.5",
        "epoch 1/1  train loss 105 recon 99.5 kl 5.5  |  test loss 105 recon 99.5 kl 5.5",
        "epoch 1/1  train cross_entropy 0.4  |  test loss 0.5 accuracy 0.9",
        "epoch 1/1  train error 6  |  test loss 5.5 ± 0.79 mse 0.1",
    ]
