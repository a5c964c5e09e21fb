"""The packages of this folder, which are imported from their sources or installed with pip."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from latentforge.cli.app import run as run_cli

HERE = Path(__file__).parent


def module_of(name: str) -> str:
    return f"latentforge_{name.replace('-', '_')}"


@pytest.fixture
def imported() -> Iterator[list[str]]:
    """The modules that are forgotten after a test."""
    imported: list[str] = []
    yield imported
    for module in [m for m in sys.modules if m.partition(".")[0] in imported]:
        del sys.modules[module]


@pytest.fixture
def external(monkeypatch, imported) -> Callable[[str], ModuleType]:
    """Import the package latentforge-NAME from its sources."""

    def load(name):
        monkeypatch.syspath_prepend(HERE / f"latentforge-{name}")
        imported.append(module_of(name))
        return importlib.import_module(imported[-1])

    return load


@pytest.fixture
def follow_readme(imported, work, monkeypatch, capsys) -> Callable[[str], None]:
    """Install the package latentforge-NAME with pip, check its contracts, and run the commands of
    its README in an empty folder."""

    def follow(name):
        package = HERE / f"latentforge-{name}"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
        target = work.parent / f"{work.name}-site"
        command = [*pip, "--no-build-isolation", "--target", str(target), str(package)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        imported.append(module_of(name))
        monkeypatch.syspath_prepend(target)
        lines = (package / "README.md").read_text("utf-8").partition("```bash\n")[2]
        commands = lines.partition("```")[0].splitlines()
        if not any(" plugins check " in line for line in commands):
            commands.insert(0, f"latentforge plugins check latentforge-{name} --deep")
        for line in commands:
            program, *words = shlex.split(line)
            assert program == "latentforge", line
            code = run_cli(words)
            out, err = capsys.readouterr()
            assert code == 0, f"{line}\n{err}"
            assert "check" not in words or " 0 failed" in out

    return follow
