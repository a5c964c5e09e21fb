"""The demo with minimal training; tests/slow runs it in full."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from PIL import Image

from latentforge import Forge
from latentforge.cli import demo


@pytest.fixture
def short(monkeypatch):
    """One epoch of each training, and two searches."""
    for _, _, options in demo.RUNS.values():
        monkeypatch.setitem(options["train"], "epochs", 1)
        monkeypatch.setitem(options["train"], "schedule", {})
    _, _, guided = demo.EXPLORERS["guided"]
    monkeypatch.setitem(guided, "n", 2)
    monkeypatch.setitem(guided, "restarts", 1)


def test_the_demo_trains_explores_and_reports(cli, work, short):
    answer = cli("demo", "--json")
    assert answer.code == 0, answer.err
    said = answer.json
    assert (said["out"], said["report"]) == ("runs/demo-1", "runs/demo-1/vae/report.html")
    assert list(said["runs"].values()) == [f"runs/demo-1/{name}" for name in ("vae", "mlp", "cnn")]

    for name, run in said["runs"].items():
        manifest = json.loads(Path(run, "run.json").read_text("utf-8"))
        assert manifest["status"] == "done"
        assert manifest["metrics"]["test"] == said["metrics"][name]
    for name, pictures in said["pictures"].items():
        found = json.loads(Path(f"runs/demo-1/vae/explore/{name}/findings.json").read_text("utf-8"))
        assert found["metrics"] == said["metrics"][name]
        for picture in pictures:
            with Image.open(picture) as image:
                assert min(image.size) > 100
    assert "runs/demo-1/vae/explore/guided/walk.gif" in said["pictures"]["guided"]

    page = Path(said["report"]).read_text("utf-8")
    for name in demo.EXPLORERS:
        assert f"latentforge explore {name} runs/demo-1/vae" in page
    assert "--with judge=runs/demo-1/cnn" in page

    steps = [line for line in answer.err.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in steps] == [f"[{i}/8" for i in range(1, 9)]

    taken = cli("demo", "--out", said["out"])
    assert taken.code == 2
    assert "will not be overwritten" in taken.err

    text = demo.format_result(said)
    assert "open      runs/demo-1/vae/report.html" in text
    for run in ("mlp", "cnn"):
        [line] = [line for line in text if line.startswith(f"{run} ")]
        assert f" {100 * said['metrics'][run]['accuracy']:.1f} %  of 359 test images" in line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_indented_and_skips_epochs(work):
    terminal = Terminal()
    with redirect_stderr(demo.IndentedStream(terminal)):
        Forge().train("ae", data="digits", model={"hidden": [8]}, train={"epochs": 20}, run="ae")
    lines = terminal.getvalue().splitlines()
    assert all(line.startswith("      ") for line in lines)
    shown = [line.split()[1] for line in lines if " train " in line]
    assert (shown[0], shown[-1]) == ("1/20", "20/20")
    assert len(shown) < 20


def test_line_written_in_parts_is_indented_once():
    stream = io.StringIO()
    print("two", "words", file=demo.IndentedStream(stream))
    assert stream.getvalue() == "      two words\n"
