"""Options of the torchvision datasets."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RootConfig:
    """`root` is the folder that contains the files in torchvision's layout. The default is the
    folder in LATENTFORGE_DATA or, if it is not set, the user's cache."""

    root: Path | None = None
