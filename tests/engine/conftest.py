"""A Forge with the built-in plugins."""

from __future__ import annotations

import pytest

from latentforge import Forge


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()
