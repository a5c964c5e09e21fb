import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture
def external(monkeypatch):
    """Import the package of a folder beside this file, and forget it after the test."""
    imported = []

    def load(name):
        monkeypatch.syspath_prepend(Path(__file__).with_name(f"latentforge-{name}"))
        imported.append(f"latentforge_{name.replace('-', '_')}")
        return importlib.import_module(imported[-1])

    yield load
    for module in [m for m in sys.modules if m.split(".")[0] in imported]:
        del sys.modules[module]
