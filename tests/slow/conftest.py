"""Commands on real MNIST, each in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPRODUCE = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce.py"


def run_python(folder: Path, *arguments: object) -> str:
    """The output of a Python program that works in `folder`."""
    if "LATENTFORGE_DATA" not in os.environ:
        pytest.skip("real MNIST: set LATENTFORGE_DATA")
    data = os.path.abspath(os.environ["LATENTFORGE_DATA"])
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "LATENTFORGE_DATA": data},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def latentforge() -> Callable[..., Any]:
    """Runs a command in a folder; returns its JSON result."""

    def call(folder: Path, *arguments: object) -> Any:
        return json.loads(run_python(folder, "-m", "latentforge", *arguments, "--json"))

    return call


@pytest.fixture(scope="session")
def reproduce() -> Callable[[Path, str], None]:
    """Trains a preset to the folder of its name and compares its metrics with those expected."""

    def call(folder: Path, preset: str) -> None:
        out = run_python(folder, REPRODUCE, "--only", preset, "--runs", folder)
        assert f"{preset}: " in out

    return call
