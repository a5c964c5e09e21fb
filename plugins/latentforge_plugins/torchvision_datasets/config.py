"""Options of torchvision datasets."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RootConfig:
    """`root`: the folder that holds the files, as torchvision lays them out. Without it, the
    environment's LATENTFORGE_DATA, and without that the user's cache."""

    root: Path | None = None
