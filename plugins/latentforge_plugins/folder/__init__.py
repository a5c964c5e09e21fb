"""Dataset `folder`: image files, in a sub-folder for each class or all in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentforge import Arrays, DatasetSpec, Size, hookimpl
from latentforge.errors import UsageError


@dataclass(frozen=True)
class FolderConfig:
    """`root`: a folder with a sub-folder of images for each class, or with images and no labels.
    `size`: [height, width] in pixels to which all are stretched; without it they must agree.
    `channels`: grey or rgb convert all; auto keeps what the files are, which must agree."""

    root: Path | None = None
    size: tuple[Size, Size] | None = None
    channels: Literal["auto", "grey", "rgb"] = "auto"


def load(config: FolderConfig, split: str) -> Arrays:
    """uint8 (N, 1 or 3, H, W) in the natural order of the names; labels index the sub-folders."""
    if config.root is None:
        raise UsageError(
            "data.root is not given: dataset folder reads the image files of a folder",
            remedy="--set data.root=FOLDER",
        )
    from .listing import listed
    from .reader import read

    root = config.root.expanduser().absolute()
    files, labels, classes = listed(root)
    return Arrays(read(files, config.size, config.channels), labels, classes)


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="folder",
        summary="Your own image files: a sub-folder for each class, or one folder (data.root)",
        load=load,
        config=FolderConfig,
        splits=("train",),
    )
