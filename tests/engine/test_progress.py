"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

from latentforge.engine.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream, interval: float = 0.0) -> str:
    progress = Progress(stream, epochs=2, steps=10, batch_size=64)
    progress.interval = interval
    progress.loss = 101.25
    for step in range(1, 21):
        progress.tick(step)
        if step % 10 == 0:
            progress.epoch(step // 10, {"train": {"loss": 99.5}, "test": {"recon": 98.0}})
    progress.close()
    return stream.getvalue()


def test_a_terminal_has_a_bar_that_redraws_its_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(Terminal())
    assert text.count("\r\x1b[K") == 23  # 20 bars, 2 epochs, the clearing at the end
    assert "[##########..........] epoch 1/2   50 %  loss 101.2" in text
    assert "images/s" in text
    assert "left" in text


def test_other_streams_get_plain_lines():
    lines = shown(io.StringIO()).splitlines()
    assert "\r" not in "".join(lines)
    assert lines[0].startswith("epoch 1/2    5 %  loss 101.2  ")
    assert lines[-1] == "epoch 2/2  train loss 99.5  |  test recon 98"


def test_nothing_is_drawn_before_the_interval_but_the_first_and_last_epoch():
    assert shown(io.StringIO(), interval=3600.0).splitlines() == [
        "epoch 1/2  train loss 99.5  |  test recon 98",
        "epoch 2/2  train loss 99.5  |  test recon 98",
    ]


def test_quiet_shows_nothing():
    progress = Progress(None, epochs=1, steps=1, batch_size=1)
    progress.tick(1)
    progress.epoch(1, {})
    progress.close()
    assert not progress.bar


def test_a_bar_fits_into_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    bars = [line for line in shown(Terminal()).split("\r\x1b[K") if line.startswith("[")]
    assert len(bars) == 20
    assert {len(bar) for bar in bars} == {39}


def test_a_line_has_the_figures_that_training_has_too_and_says_none_twice():
    stream = io.StringIO()
    progress = Progress(stream, epochs=1, steps=1, batch_size=1)
    one = {"loss": 99.5001, "recon": 99.5}
    three = {"loss": 105.0, "recon": 99.5, "kl": 5.5}
    many = {"active_units": 4, **three, "elbo": -105.0}
    weighed = {**three, "kl_weight": 0.5}
    other = {"loss": 0.5, "accuracy": 0.9}
    progress.epoch(1, {"train": one, "test": one})
    progress.epoch(1, {"train": weighed, "test": many})
    progress.epoch(1, {"train": {"loss": 0.4, "cross_entropy": 0.4}, "test": other})
    assert stream.getvalue().splitlines() == [
        "epoch 1/1  train recon 99.5  |  test recon 99.5",
        "epoch 1/1  train loss 105 recon 99.5 kl 5.5  |  test loss 105 recon 99.5 kl 5.5",
        "epoch 1/1  train cross_entropy 0.4  |  test loss 0.5 accuracy 0.9",
    ]
