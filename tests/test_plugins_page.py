"""docs/plugins.md: its smallest model trains; the tutorial is followed in tests/e2e."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from latentforge import hookspecs, testing
from latentforge.cli import run as run_cli
from latentforge.drafting import read_toml
from latentforge.requirements import check_requirements

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
TEXT = PAGE.read_text("utf-8")


def blocks(heading):
    part = TEXT.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def test_the_smallest_model_has_at_most_thirty_lines_in_two_files_and_trains(work):
    (_, hooks), (_, network), (_, command) = blocks("A model in thirty lines")
    lines = [line for text in (hooks, network) for line in text.splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("# ")]) <= 30
    for text in (hooks, network):
        file = work / re.match(r"# (\S+\.py)\n", text)[1]
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert run_cli(shlex.split(command)[1:]) == 0
    assert (work / "runs/linear-digits-1/run.json").exists()


def test_the_config_of_the_page_is_read_and_wants_its_plugin_first(work):
    [(_, text)] = blocks("Configs and runs that need plugins")
    (work / "c.toml").write_text(text)
    check_requirements(["latentforge>=0.0"], "c.toml")  # which is here
    assert read_toml(work / "c.toml")["requires_plugins"] == ["latentforge-swirl>=0.2"]
    assert run_cli(["train", "--config", "c.toml"]) == 3


def test_the_entry_point_of_a_command_is_that_of_the_example():
    [(_, text)] = blocks("A package's own commands")
    example = PAGE.parents[1] / "examples/latentforge-physics/pyproject.toml"
    points = read_toml(example)["project"]["entry-points"]
    assert tomllib.loads(text)["project"]["entry-points"].items() <= points.items()


def test_the_page_names_what_tests_get_and_every_observer():
    for name in testing.__all__:
        if name.startswith("check_") or name == "tiny_images":
            assert f"`{name}" in TEXT
    observers = [name for name in vars(hookspecs) if name.startswith("latentforge_run_")]
    assert len(observers) == 3
    for name in observers:
        assert re.search(rf"`{name}\((.*?)\)`", TEXT)[1].split(", ") == [
            argument for argument in vars(hookspecs)[name].__annotations__ if argument != "return"
        ]


@pytest.mark.parametrize("command", ["list", "show", "check", "new"])
def test_the_page_has_every_plugins_command(command):
    assert f"| `latentforge plugins {command}" in TEXT
