"""Dataset `folder`: image files, either in a sub-folder for each class or all in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentforge import DatasetSpec, Size, hookimpl
from latentforge.errors import UsageError


@dataclass(frozen=True)
class FolderConfig:
    """`root` is a folder with a sub-folder of images for each class, or with images without labels.
    `size` is the [height, width] in pixels to which all images are resized; without it, their sizes
    must be equal. `channels` grey and rgb convert all images; auto keeps the channels of the files,
    which must be equal."""

    root: Path | None = None
    size: tuple[Size, Size] | None = None
    channels: Literal["auto", "grey", "rgb"] = "auto"


def load(config: FolderConfig, split: str):
    """Return a dataset that decodes images on access, uint8 (1 or 3, H, W) each, in natural order
    of their names. Its labels are indices of the sub-folders."""
    if config.root is None:
        raise UsageError(
            "data.root is not given: dataset folder reads the image files of a folder",
            hint="--set data.root=FOLDER",
        )
    from .listing import list_images
    from .pictures import Pictures

    root = config.root.expanduser().absolute()
    files, labels, classes = list_images(root)
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
