"""Code shared by the twins of every kind."""

from __future__ import annotations

import os
from dataclasses import dataclass

from latentforge import Size


@dataclass(frozen=True)
class GoodConfig:
    """`size` is the size of the component."""

    size: Size = 3


def meddle():
    """Change the state of the whole process, always to the same value."""
    os.environ["LATENTFORGE_TWIN"] = "1"
