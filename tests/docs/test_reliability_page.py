"""docs/reliability.md: its code runs, and the tests that it names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from latentforge.cli.app import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    exec(compile(code, "reliability.md", "exec"), {})


@pytest.mark.parametrize("line", re.findall(r"^latentforge .+$", TEXT, re.M))
def test_commands_of_the_page_parse(line):
    _, name, *arguments = shlex.split(line)
    get_command(app).commands[name].make_context(name, arguments)


def test_tests_named_on_the_page_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)`", TEXT)
    assert len(named) >= 4
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_campaign_has_no_losses():
    [counts] = re.findall(r"^## Counts\n(.*)\Z", TEXT, re.M | re.S)
    assert int(re.search(r"kills: (\d+) in \d+ runs", counts)[1]) >= 1000
    assert re.findall(r"losses: (\d+)", counts) == ["0", "0"]  # of kills and of disk faults
    assert "undetected: 0" in counts
