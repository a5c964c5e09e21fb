"""Dataset `folder`: image files, in a sub-folder for each class or split, or all in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentforge import DatasetSpec, Size, hookimpl
from latentforge.errors import UsageError


@dataclass(frozen=True)
class FolderConfig:
    """`root` is a folder with a sub-folder of images for each class, or with images without labels,
    or with such folders named train, val and test. `labels` is a CSV file with the label of each
    image: `file_column` and `label_column` name its columns, which are found if this is clear.

    `size` is the [height, width] in pixels to which all images are resized, or one number for both;
    without it, their sizes must be equal. `fit` stretches them to this shape, or keeps their shape
    and crops or pads them. `channels` grey and rgb convert all images; auto keeps the channels of
    the files, which must be equal. `frames` reads the first or all images of a file with several.
    Images with more than `max_pixels` pixels are refused: decoding them may take all memory.
    """

    root: Path | None = None
    labels: Path | None = None
    file_column: str = ""
    label_column: str = ""
    size: Size | tuple[Size, Size] | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    channels: Literal["auto", "grey", "rgb"] = "auto"
    frames: Literal["first", "all"] = "first"
    max_pixels: Size = 89_478_485


def load(config: FolderConfig, split: str):
    """Return a dataset that decodes images on access, (1 or 3, H, W) each, in natural order of
    their names. Its labels are indices of the sub-folders, or names from `labels`."""
    from .listing import list_images
    from .pictures import Pictures

    return Pictures(list_images(check_root(config), config, split), config)


def splits(config: FolderConfig) -> tuple[str, ...]:
    """Return the splits for which there are sub-folders, or train."""
    from .listing import find_splits

    return tuple(find_splits(check_root(config))) or ("train",)


def check_root(config: FolderConfig) -> Path:
    if config.root is None:
        raise UsageError(
            "data.root is not given: dataset folder reads the image files of a folder",
            hint="--set data.root=FOLDER",
        )
    return config.root.expanduser().absolute()


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="folder",
        summary="Your own image files: a sub-folder for each class, or one folder (data.root)",
        load=load,
        config=FolderConfig,
        splits=splits,
    )
