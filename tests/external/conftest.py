"""Packages of this folder are imported from their sources."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture
def external(monkeypatch):
    """A function that makes the package latentforge-NAME importable for one test."""
    packages = []

    def prepend(name):
        packages.append(f"latentforge_{name}")
        monkeypatch.syspath_prepend(Path(__file__).parent / f"latentforge-{name}")

    yield prepend
    for module in [*sys.modules]:
        if module.partition(".")[0] in packages:
            del sys.modules[module]
