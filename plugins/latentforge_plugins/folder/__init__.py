"""Dataset `folder`: image files, in a sub-folder for each class or split, or all in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from latentforge import DatasetSpec, hookimpl
from latentforge.errors import UsageError

from .config import FolderConfig


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
    return config.root.absolute()


@hookimpl
def latentforge_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="folder",
        summary="Your own image files: a sub-folder for each class, or one folder (data.root)",
        load=load,
        config=FolderConfig,
        splits=splits,
    )
