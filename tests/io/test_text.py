"""Numbers with their nouns in messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentforge.io.text import are, counted, were


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "step", "1 step"),
        (0, "step", "0 steps"),
        (2, "step", "2 steps"),
        (1.0, "epoch", "1 epoch"),
        (0.5, "epoch", "0.5 epochs"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (1234, "training image", "1234 training images"),
    ],
)
def test_a_noun_agrees_with_its_number(number, noun, text):
    assert counted(number, noun) == text
    assert (are(number), were(number)) == (("is", "was") if number == 1 else ("are", "were"))


def test_an_irregular_plural_is_given():
    assert counted(2, "axis", "axes") == "2 axes"
    assert counted(1, "axis", "axes") == "1 axis"


def test_one_of_something_is_singular_on_the_command_line(cli, work):
    line = ("train", "ae", "--epochs", "1", "--batch-size", "2000", "--set", "model.hidden=[8]")
    trained = cli(*line, "--run", "run", "--quiet")
    assert ": done, 1 step in " in trained.out
    assert "has already been trained for 1 epoch\n" in cli("train", "--resume", "run").err
    report = cli("report", "run")
    assert report.code == 0
    assert "1 epoch, 1 step in " in Path("run/report.html").read_text("utf-8")
    assert cli("encode", "run", "--out", "codes.npz").code == 0
    import numpy as np

    np.savez("one.npz", z=np.load("codes.npz")["z"][:1])
    assert cli("decode", "run", "one.npz", "--out", "one").out.startswith("1 image, 1 of them")
    refused = cli("explore", "interpolate", "run", "--set", "classes=[3]")
    assert "must have at least 2 values" in refused.err
    sweep = (
        "sweep",
        "ae",
        "--epochs",
        "1",
        "--set",
        "model.hidden=[8]",
        "--grid",
        "train.seed=[1]",
    )
    assert ", 1 member\n" in cli(*sweep, "--quiet").out
