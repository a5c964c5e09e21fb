"""The folder in which the built-in datasets look for files and store downloads."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(root: Path | None) -> Path:
    """Return `root` if given, else the folder in LATENTFORGE_DATA, else one in the user's cache."""
    if root is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "latentforge")
        root = Path(os.environ.get("LATENTFORGE_DATA") or cache)
    return root.expanduser().absolute()
