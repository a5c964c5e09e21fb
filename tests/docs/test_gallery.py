"""docs/gallery.md: a section and pictures for every explorer, and commands that parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from latentforge import Forge
from latentforge.cli.app import app
from latentforge.cli.output import parse_roles
from latentforge.config.request import Draft
from latentforge.config.resolve import resolve
from latentforge.config.selection import check_roles, select_explorer

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "gallery.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
COMMANDS = re.findall(r"^latentforge .+$", TEXT, re.M)
PICTURES = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", TEXT)
REGISTRY = Forge().registry
EXPLORERS = [entry.name for entry in REGISTRY.entries("explorers")]


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_explorer_has_a_section_with_its_command_and_its_picture(name):
    assert f"\nlatentforge explore {name} " in SECTIONS[name]
    assert "](gallery/" in SECTIONS[name]


def test_every_picture_is_readable_described_and_shown():
    for alt, path in PICTURES:
        assert len(alt) > 10, path
        with Image.open(DOCS / path) as picture:
            picture.load()
            assert picture.width > 300, path
            assert picture.format == {".png": "PNG", ".gif": "GIF"}[Path(path).suffix]
            assert path.endswith(".png") or picture.n_frames > 1
    shown = {Path(path).name for _, path in PICTURES}
    assert shown == {file.name for file in (DOCS / "gallery").iterdir()}


def test_the_pictures_are_small():
    sizes = {file.name: file.stat().st_size for file in (DOCS / "gallery").iterdir()}
    assert sum(sizes.values()) < 2.5e6
    assert max(sizes.values()) < 300e3


def parsed(line: str) -> dict[str, Any]:
    """The parameters of a command; it raises if the line does not parse."""
    _, name, *words = shlex.split(line)
    given: dict[str, Any] = get_command(app).commands[name].make_context(name, words).params
    return given


@pytest.fixture(scope="module")
def configs():
    """The configuration of each run of the page, by its folder, from the command that trains it."""
    found = {}
    for line in COMMANDS:
        if line.startswith("latentforge train "):
            given, draft = parsed(line), Draft()
            draft.read_file(REGISTRY.get("presets", given["preset"]).spec.path)
            draft.assign_all(given["set_"] or ())
            found[str(given["run"])] = resolve(draft, REGISTRY)
    return found


@pytest.mark.parametrize("line", [line for line in COMMANDS if " explore " in line])
def test_explore_commands_have_valid_runs_and_options(line, configs):
    given = parsed(line)
    config, name = configs[str(given["run"])], given["explorer"]
    classes, options = [*"0123456789"], given["set_"] or ()
    chosen = select_explorer(REGISTRY, config, classes, name, options, {}, given["preset"])
    models = {
        role: configs[other].model.entry for role, other in parse_roles(given["with_"]).items()
    }
    check_roles(REGISTRY, chosen.entries, models)


def test_the_report_is_of_a_run_that_the_page_trains(configs):
    [line] = [line for line in COMMANDS if " report " in line]
    assert {str(run) for run in parsed(line)["runs"]} <= set(configs)


def test_all_commands_are_covered():
    assert {line.split()[1] for line in COMMANDS} == {"train", "explore", "report"}


def test_page_has_no_absolute_paths():
    assert not re.search(r"(^|[\s`(=])(/|~/|[A-Z]:\\)", TEXT, re.M)
