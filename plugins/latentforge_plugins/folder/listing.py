"""Lists the image files of a folder, with its sub-folders as classes."""

from __future__ import annotations

import re
from pathlib import Path

from latentforge.errors import MissingError, UsageError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def list_images(root: Path) -> tuple[list[Path], list[int] | None, tuple[str, ...]]:
    """Return the image files in natural order, their labels, and the names of the classes. Hidden
    files and files without an image extension are ignored. Raises MissingError if the folder does
    not exist, and UsageError if its contents are neither a labelled nor an unlabelled set."""
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise MissingError(
            f"data.root: {root} {problem}",
            hint="--set data.root=FOLDER with a folder that contains images",
        )
    try:
        root_images, folders = images_in(root), folders_in(root)
        images_by_class = {folder: images_in(folder) for folder in folders}
        if not root_images:
            check_classes(root, images_by_class)
    except OSError as error:
        raise UsageError(f"data.root: {root} cannot be read: {error}") from None
    if root_images and folders:
        raise UsageError(
            f"data.root: {root} contains both images ({root_images[0].name}) "
            f"and sub-folders ({folders[0].name})",
            hint="put every image into the sub-folder of its class, or move the sub-folders out",
        )
    if root_images:
        return root_images, None, ()
    files = [file for images in images_by_class.values() for file in images]
    labels = [label for label, images in enumerate(images_by_class.values()) for _ in images]
    return files, labels, tuple(folder.name for folder in images_by_class)


def check_classes(root: Path, images_by_class: dict[Path, list[Path]]) -> None:
    """Raise UsageError unless there are at least two sub-folders and all contain images."""
    empty = [folder for folder, images in images_by_class.items() if not images]
    if len(empty) == len(images_by_class):
        raise UsageError(
            f"data.root: no images in {root} or its sub-folders",
            details=[f"supported extensions: {' '.join(EXTENSIONS)}"],
            hint=nested_folder_hint(empty)
            or "--set data.root=FOLDER with a folder that contains images",
        )
    if empty:
        raise UsageError(
            f"data.root: no images in {', '.join(map(str, empty[:5]))}; "
            f"each sub-folder of {root} is a class",
            hint=nested_folder_hint(empty) or "move folders that are not classes elsewhere",
        )
    if len(images_by_class) == 1:
        (only,) = images_by_class
        raise UsageError(
            f"data.root: {root} has only one sub-folder, {only.name}, "
            "but labels need at least two classes",
            hint=f"--set data.root={only}, to load its images without labels",
        )


def nested_folder_hint(empty: list[Path]) -> str:
    """Return a hint if the class folders are one level deeper, as in train/cat and test/cat."""
    for folder in empty:
        if any(images_in(inner) for inner in folders_in(folder)):
            return f"--set data.root={folder}, whose sub-folders contain images"
    return ""


def images_in(folder: Path) -> list[Path]:
    files = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and path.name[0] != "."
        if path.is_file() or path.is_symlink()  # a dangling link is an unreadable image
    )
    return sorted(files, key=natural_key)


def folders_in(folder: Path) -> list[Path]:
    inner = (path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())
    return sorted(inner, key=natural_key)


def natural_key(path: Path) -> tuple[list[int | str], str]:
    """Return a sort key that puts 2 before 10: the name with numbers as integers, then the name."""
    parts = re.split(r"([0-9]+)", path.name.casefold())  # text and numbers alternate
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
