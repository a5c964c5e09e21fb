"""`plugins new` and `plugins check` from the command line; tests/e2e installs the packages."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from latentforge import findings
from latentforge.cli.app import app
from latentforge.plugins.scaffold import IMPLEMENTED, new_plugin, render_files

ROOT = Path(__file__).parents[2]
NOT_STRICT = """
[[tool.mypy.overrides]]
disallow_untyped_calls = false
disallow_untyped_defs = false
disallow_incomplete_defs = false
warn_return_any = false
"""
BROKEN = """
from dataclasses import dataclass

from latentforge import ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class Config:
    size: Size = 0


@hookimpl
def latentforge_models():
    yield ModelSpec(name="bad", summary="s", build=print, config=Config, provides={"encode"},
                    default_loss="reconstruction")
"""


@pytest.mark.parametrize("kind", IMPLEMENTED)
def test_commands_in_the_readme_of_a_new_package_parse(kind):
    readme = render_files("swirl", kind)["README.md"]
    lines = [line for line in readme.splitlines() if line.startswith("latentforge ")]
    assert len(lines) >= 3
    for line in lines:
        _, name, *words = shlex.split(line)
        command = get_command(app).commands[name]
        if hasattr(command, "commands"):
            name, *words = words
            command = command.commands[name]
        command.make_context(name, words)


def test_a_new_explorer_uses_the_current_names_of_findings():
    code = render_files("swirl", "explorer")["latentforge_swirl/explorer.py"]
    [line] = [line for line in code.splitlines() if "latentforge.findings import" in line]
    names = line.partition("import ")[2].split(", ")
    assert "NamedArrays" in names
    assert [getattr(findings, name).__name__ for name in names] == names


@pytest.mark.parametrize("kind", IMPLEMENTED)
def test_new_package_passes_its_checks(kind, cli, work):
    assert cli("plugins", "new", "swirl", "--kind", kind).code == 0
    answer = cli("plugins", "check", "latentforge-swirl", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["failed"] == 0
    assert answer.json["passed"] >= 4


def test_a_folder_whose_plugin_is_an_object_is_checked(cli, work):
    assert cli("plugins", "new", "vortex").code == 0
    file = work / "latentforge-vortex/pyproject.toml"
    file.write_text(file.read_text().replace('= "latentforge_vortex"', '= "latentforge_vortex:me"'))
    module = work / "latentforge-vortex/latentforge_vortex/__init__.py"
    module.write_text(module.read_text() + "\n\nimport sys\nme = sys.modules[__name__]\n")
    answer = cli("plugins", "check", "latentforge-vortex", "--json")
    assert answer.code == 0, answer.err
    seen = {check["check"]: check["status"] for check in answer.json["checks"]}
    assert seen["the hook module imports nothing heavy"] == "passed"


@pytest.mark.slow  # half a minute if mypy has no cache of torch
def test_new_packages_pass_a_type_checker(work):
    """Without the strict options for code without types. The cache is that of `make lint`, which
    may have checked torch; both must not run at the same time."""
    for kind in IMPLEMENTED:
        new_plugin(f"swirl-{kind}", kind, work)
    packages = sorted(file.parent for file in work.glob("*/*/__init__.py"))
    assert len(packages) == len(IMPLEMENTED)
    config = (ROOT / "pyproject.toml").read_text("utf-8")
    modules = [f"{package.name}.*" for package in packages]
    Path("pyproject.toml").write_text(f"{config}{NOT_STRICT}module = {modules}\n", "utf-8")
    command = [sys.executable, "-m", "mypy", "--cache-dir", ROOT / ".mypy_cache", *packages]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(cli, work):
    assert cli("plugins", "new", "swirl").code == 0
    (work / "latentforge-swirl/README.md").write_text("mine")
    answer = cli("plugins", "new", "swirl")
    assert answer.code == 2
    assert "already exists" in answer.err
    assert (work / "latentforge-swirl/README.md").read_text() == "mine"


def test_failed_check_ends_with_a_hint(cli, work):
    (work / "bad.py").write_text(BROKEN)
    answer = cli("plugins", "check", "./bad.py")
    assert answer.code == 3
    assert "failed      model bad: every option has a valid default" in answer.out
    assert "model bad: every option is described: name each option there" in answer.err
    report = cli("plugins", "check", "./bad.py", "--json")
    assert report.json["failed"] == 2
    assert report.json["exit_code"] == 3
    statuses = {check["check"]: check["status"] for check in report.json["checks"]}
    assert statuses["the hook module imports nothing heavy"] == "passed"


def test_folder_that_is_not_a_plugin_package_is_refused(cli, work):
    (work / "swirl").mkdir()
    answer = cli("plugins", "check", "swirl")
    assert answer.code == 2
    assert "unknown plugin 'swirl'" in answer.err
    (work / "swirl/pyproject.toml").write_text("[project]\nname = 'swirl'\n")
    answer = cli("plugins", "check", "swirl")
    assert answer.code == 2
    assert "has no [project.entry-points.latentforge]" in answer.err
