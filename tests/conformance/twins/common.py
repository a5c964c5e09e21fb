"""What the twins of every kind share."""

from __future__ import annotations

import os
from dataclasses import dataclass

from latentforge import Size


@dataclass(frozen=True)
class GoodConfig:
    """`size` of whatever the component is about."""

    size: Size = 3


def meddle():
    """Change what belongs to the whole process, to the same each time."""
    os.environ["LATENTFORGE_TWIN"] = "1"
