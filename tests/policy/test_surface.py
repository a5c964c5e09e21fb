"""What plugins and scripts rely on changes only with a line in the changelog.

surface.json holds it as it was at the last release; this file, run as a program, writes it anew.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import typer.main

from latentforge import hookspecs
from latentforge.cli import app

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("surface.json")


def hooks() -> dict[str, str]:
    """Every hook with its exact signature."""
    return {
        name: str(inspect.signature(function))
        for name, function in vars(hookspecs).items()
        if inspect.isfunction(function) and function.__module__ == hookspecs.__name__
    }


def options(command, path: str) -> Iterator[tuple[str, list[str]]]:
    """Every command, and what stands on its line: options by their names, arguments by theirs."""
    inner = getattr(command, "commands", None)
    found = ["/".join([*p.opts, *p.secondary_opts]) for p in command.params]
    yield path, sorted(word for word in found if not word.startswith("--help"))
    for name, sub in (inner or {}).items():
        yield from options(sub, f"{path} {name}")


def surface() -> dict[str, dict]:
    commands = dict(options(typer.main.get_command(app), "latentforge"))
    return {"hooks": hooks(), "commands": commands}


def changes(before: dict, now: dict) -> Iterator[str]:
    """The names of hooks, commands and options that are new, gone or other."""
    for name in before["hooks"] | now["hooks"]:
        if before["hooks"].get(name) != now["hooks"].get(name):
            yield name
    for command in before["commands"] | now["commands"]:
        old, new = (set(side["commands"].get(command, [])) for side in (before, now))
        if (command in before["commands"]) != (command in now["commands"]):
            yield command.removeprefix("latentforge ")
        for option in old ^ new:
            yield option.split("/")[0]


def test_what_others_rely_on_changes_only_with_a_line_in_the_changelog():
    unreleased = (ROOT / "CHANGELOG.md").read_text("utf-8").split("\n## ")[1]
    changed = set(changes(json.loads(SNAPSHOT.read_text("utf-8")), surface()))
    untold = sorted(name for name in changed if f"`{name}`" not in unreleased)
    assert not untold, "write a line with `NAME` for each into CHANGELOG.md"


def test_a_change_is_noticed():
    now = surface()
    other = json.loads(json.dumps(now))
    other["hooks"]["latentforge_models"] = "(config)"
    other["commands"]["latentforge train"].remove("--epochs")
    del other["commands"]["latentforge plugins new"]
    assert {"latentforge_models", "--epochs", "plugins new"} <= set(changes(other, now))
    assert set(changes(now, now)) == set()


def test_every_hook_is_documented_with_its_exact_signature():
    """In docs/contracts.md or docs/plugins.md; tests/test_hookspecs.py runs each docstring."""
    text = "".join(
        (ROOT / "docs" / f"{page}.md").read_text("utf-8") for page in ("contracts", "plugins")
    )
    for name, function in vars(hookspecs).items():
        if name in hooks():
            arguments = ", ".join(inspect.signature(function).parameters)
            assert f"{name}({arguments})" in text, name


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(surface(), indent=1, sort_keys=True) + "\n", "utf-8")
