import sys
from pathlib import Path

import pytest


@pytest.fixture
def external(monkeypatch):
    """Puts a package of this folder on the path, and forgets its modules after the test."""
    before = set(sys.modules)
    yield lambda name: monkeypatch.syspath_prepend(Path(__file__).parent / f"latentforge-{name}")
    for module in set(sys.modules) - before:
        if module.startswith("latentforge_"):
            del sys.modules[module]
