"""The public interface changes only with a line in the changelog.

surface.json is the interface of the last release; this file, run as a program, rewrites it.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

import latentforge
from latentforge import conformance, contracts, hookspecs, specs, testing
from latentforge.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("surface.json")
CHANGELOG = ROOT / "CHANGELOG.md"
HEADING = "### Changed interfaces"


# ---------------------------------------------------------------- the current interface


def hooks() -> dict[str, str]:
    """Every hook with its exact signature."""
    return {
        name: str(inspect.signature(function))
        for name, function in vars(hookspecs).items()
        if inspect.isfunction(function) and function.__module__ == hookspecs.__name__
    }


def options(command, path: str) -> Iterator[tuple[str, list[str]]]:
    """Every command, with the names of its options and arguments."""
    inner = getattr(command, "commands", None)
    found = ["/".join([*p.opts, *p.secondary_opts]) for p in command.params]
    yield path, sorted(word for word in found if not word.startswith("--help"))
    for name, sub in (inner or {}).items():
        yield from options(sub, f"{path} {name}")


def described(field) -> str:
    """A field's type as it is written, and its default."""
    if field.default is not MISSING:
        return f"{field.type} = {getattr(field.default, '__name__', repr(field.default))}"
    return str(field.type) + ("" if field.default_factory is MISSING else " = ...")


def field_texts(owner: type) -> dict[str, str]:
    """The public fields of a dataclass, by `Class.field`."""
    public = [field for field in fields(owner) if not field.name.startswith("_")]
    return {f"{owner.__name__}.{field.name}": described(field) for field in public}


def names() -> dict[str, str]:
    """The Python interface: public names, the fields of specs and of objects passed to components,
    and the functions and fixtures for tests of plugins."""
    found = {f"latentforge.{name}": "" for name in latentforge.__all__}
    for module in (specs, contracts):
        for value in vars(module).values():
            if getattr(value, "__module__", "").startswith(module.__name__) and is_dataclass(value):
                found |= field_texts(value)
    for name in testing.__all__:
        value = getattr(testing, name)
        found[name] = str(inspect.signature(value))
        found |= field_texts(value) if is_dataclass(value) else {}
    fixtures = re.findall(r"^@pytest\.fixture.*\ndef (\w+)", inspect.getsource(testing), re.M)
    found |= dict.fromkeys(fixtures, "a fixture")
    for function in (contracts.Terms, conformance.checks_of):
        written = re.sub(r"ForwardRef\('(.*?)'[^)]*\)", r"\1", str(inspect.signature(function)))
        found[function.__name__] = written
    return found


def surface() -> dict[str, Any]:
    return {
        "release": released(CHANGELOG.read_text("utf-8")),
        "hooks": hooks(),
        "names": names(),
        "commands": dict(options(typer.main.get_command(app), "latentforge")),
    }


# ---------------------------------------------------------------- changes


def changes(before: dict, now: dict) -> Iterator[str]:
    """The names of hooks, names, commands and options that were added, removed or changed."""
    for part in ("hooks", "names"):
        for name in before[part] | now[part]:
            if before[part].get(name) != now[part].get(name):
                yield name
    for command in before["commands"] | now["commands"]:
        old, new = (set(side["commands"].get(command, [])) for side in (before, now))
        if (command in before["commands"]) != (command in now["commands"]):
            yield command.removeprefix("latentforge ")
        for option in old ^ new:
            yield option.split("/")[0]


def sections(changelog: str) -> list[str]:
    """The text of each version with its heading, the newest first."""
    return changelog.split("\n## ")[1:]


def released(changelog: str) -> str:
    """The newest released version; empty before the first release."""
    headings = [section.split("\n")[0] for section in sections(changelog)]
    return next((line.split()[0] for line in headings if "(unreleased)" not in line), "")


def unlisted(changed: Iterable[str], changelog: str) -> list[str]:
    """The changed names without a line under the heading of the unreleased section."""
    newest = sections(changelog)[0]
    _, _, after = newest.partition(f"\n{HEADING}\n")
    listed = after.split("\n### ")[0] if "(unreleased)" in newest.split("\n")[0] else ""
    return sorted({name for name in changed if f"`{name}`" not in listed})


def test_interface_changes_have_a_line_in_the_changelog():
    changed = changes(json.loads(SNAPSHOT.read_text("utf-8")), surface())
    missing = unlisted(changed, CHANGELOG.read_text("utf-8"))
    assert not missing, f"add a line with `NAME` for each under {HEADING!r} in CHANGELOG.md"


def test_the_snapshot_is_of_the_last_release():
    of = json.loads(SNAPSHOT.read_text("utf-8"))["release"]
    assert of == released(CHANGELOG.read_text("utf-8")), (
        "after a release: python tests/policy/test_surface.py"
    )


def test_changes_are_found():
    now = surface()
    other = json.loads(json.dumps(now))
    other["hooks"]["latentforge_models"] = "(config)"
    other["commands"]["latentforge train"].remove("--epochs")
    del other["commands"]["latentforge plugins new"]
    other["names"]["ModelSpec.summary"] = "str = ''"
    for name in ("latentforge.Size", "check_model", "checks_of", "forge", "Batch.y"):
        del other["names"][name]
    assert set(changes(other, now)) >= {
        *("latentforge_models", "--epochs", "plugins new", "ModelSpec.summary"),
        *("latentforge.Size", "check_model", "checks_of", "forge", "Batch.y"),
    }
    assert set(changes(now, now)) == set()


def test_snapshot_contains_the_interface_of_plugins():
    found = names()
    assert found["LossSpec.labels"] == "bool = False"
    assert found["ModelSpec.config"] == "type[Any] = NoOptions"
    assert found["ExploreContext.roles"] == "Mapping[str, OtherRun] = ..."
    assert "shape: 'tuple[int, ...] | None' = None" in found["checks_of"]
    assert "how: 'Any'" in found["check_loss"]
    assert found["latentforge_cli"] == "a fixture"


OUT = "\n## 0.1.0\n\n### Changed interfaces\n\n- `--epochs`\n"


@pytest.mark.parametrize(
    ("newest", "missing"),
    [
        ("## 0.2.0 (unreleased)\n\n- `--epochs` is fast.\n", ["--epochs"]),
        ("## 0.2.0 (unreleased)\n\n### Changed interfaces\n\n- `--epochs` takes a range.\n", []),
        (
            "## 0.2.0 (unreleased)\n\n### Changed interfaces\n\n- None.\n\n### Other\n`--epochs`\n",
            ["--epochs"],
        ),
        ("## 0.2.0\n\n### Changed interfaces\n\n- `--epochs` takes a range.\n", ["--epochs"]),
    ],
)
def test_changelog_line_counts_only_under_the_unreleased_heading(newest, missing):
    assert unlisted(["--epochs"], f"# Changelog\n\n{newest}{OUT}") == missing


@pytest.mark.parametrize(
    ("headings", "version"),
    [
        (["0.1.0 (unreleased)"], ""),
        (["0.2.0 (unreleased)", "0.1.0"], "0.1.0"),
        (["0.2.0"], "0.2.0"),
    ],
)
def test_last_release_is_read_from_the_changelog(headings, version):
    assert released("# Changelog\n" + "".join(f"\n## {line}\n" for line in headings)) == version


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
    text = CHANGELOG.read_text("utf-8")
    if released(text) and "(unreleased)" in sections(text)[0].split("\n")[0]:
        sys.exit("rewritten only at a release: first remove (unreleased) from the newest version")
    SNAPSHOT.write_text(json.dumps(surface(), indent=1, sort_keys=True) + "\n", "utf-8")
