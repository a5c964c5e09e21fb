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


# Values of plain implementations of the recipes (benchmarks/plain_builds.py), and the allowance for
# the variation between seeds. `make reproduce` trains both and compares all presets.
EXPECTED = {
    "latent-differentiation-ae": {"mse_per_pixel": (0.0370, 0.0005)},
    "latent-differentiation-classifier": {"accuracy": (0.969, 0.004)},
    "grad-vae-beta4": {"recon": (151.1, 2.0), "kl": (4.0, 0.3)},
    "grad-vae-z10-beta1": {"recon": (88.7, 1.0), "kl": (19.1, 0.5)},
}


@pytest.fixture(scope="session")
def reproduce(latentforge: Callable[..., Any]) -> Callable[[Path, str], None]:
    """Trains a preset to the folder of its name and compares its metrics with those expected."""

    def call(folder: Path, preset: str) -> None:
        run = latentforge(folder, "train", "--preset", preset, "--run", preset)
        for name, (value, margin) in EXPECTED[preset].items():
            assert run["metrics"]["test"][name] == pytest.approx(value, abs=margin), name

    return call
