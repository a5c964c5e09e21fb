"""Dataset `folder`: image files, in a sub-folder for each class or all in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentforge import DatasetSpec, Size, hookimpl
from latentforge.errors import UsageError


@dataclass(frozen=True)
class FolderConfig:
    """`root`: a folder with a sub-folder of images for each class, or with images and no labels.
    `size`: [height, width] in pixels to which all are stretched; without it they must agree.
    `channels`: grey or rgb convert all; auto keeps what the files are, which must agree."""

    root: Path | None = None
    size: tuple[Size, Size] | None = None
    channels: Literal["auto", "grey", "rgb"] = "auto"


def load(config: FolderConfig, split: str):
    """uint8 (1 or 3, H, W) each, in the natural order of the names, decoded when they are wanted;
    labels index the sub-folders."""
    if config.root is None:
        raise UsageError(
            "data.root is not given: dataset folder reads the image files of a folder",
            remedy="--set data.root=FOLDER",
        )
    from .listing import listed
    from .pictures import Pictures

    root = config.root.expanduser().absolute()
    files, labels, classes = listed(root)
    return Pictures(files, labels, classes, config.size, config.channels)


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="folder",
        summary="Your own image files: a sub-folder for each class, or one folder (data.root)",
        load=load,
        config=FolderConfig,
        splits=("train",),
    )
