"""The output of the demo; tests/slow runs it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from latentforge import Forge
from latentforge.cli import demo


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
