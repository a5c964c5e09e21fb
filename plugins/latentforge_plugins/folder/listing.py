"""Lists the image files of a folder, its splits and classes, and the files that are not read."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from latentforge.data.arrays import data_option
from latentforge.data.preparation import SPLITS
from latentforge.errors import MissingError, UsageError, similar_paths
from latentforge.io.text import are, counted, natural_key, pluralized

from .config import FolderConfig
from .labels import as_values, read_label_file

log = logging.getLogger("latentforge")

EXTENSIONS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
MAX_LISTED = 5  # folders in a message
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


SPLIT_WORDS = ("train", "tr", "val", "dev", "test", "ts", "eval", "holdout")


@dataclass
class Listing:
    """The image files of one split in the folder `root`, with their labels: indices of `classes`,
    or names, and with their factors. `top` is the folder of all splits. `skipped` counts the other
    files by the reason why they are not read."""

    root: Path
    files: list[Path]
    labels: Sequence[int | float | str] | None = None
    classes: tuple[str, ...] = ()
    top: Path | None = None
    factors: dict[str, list[int | float | str]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def report(self) -> None:
        """Announce the number of files that are not read, with the reasons."""
        if self.skipped:
            reasons = "; ".join(f"{count} {why}" for why, count in self.skipped.most_common())
            count = self.skipped.total()
            files = f"{counted(count, 'file')} {are(count)}"
            log.warning("%s: %s not read: %s", self.root, files, reasons)


def find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of official splits by split, or nothing if the sub-folders are classes.
    Each sub-folder must be named after a split, and one of them train."""
    check_folder(root)
    folders = folders_in(root)
    splits = {SPLIT_FOLDERS.get(folder.name.lower(), ""): folder for folder in folders}
    if "train" not in splits or images_in(root):
        return {}
    if "" in splits:
        if len(splits) == 2:  # "train" and other names: classes, such as kinds of vehicles
            return {}
        others = [f.name for f in folders if f.name.lower() not in SPLIT_FOLDERS]
        raise UsageError(
            f"data.root: {root} has folders of splits and also {', '.join(others[:5])}",
            hint=f"move {others[0]} out of {root}",
        )
    if len(splits) < len(folders):
        names = ", ".join(folder.name for folder in folders)
        raise UsageError(
            f"data.root: two folders of {root} are the same split: {names}",
            hint="keep one folder for each of train, val and test",
        )
    if len({folder.resolve() for folder in splits.values()}) < len(splits):
        names = ", ".join(folder.name for folder in folders)
        raise UsageError(
            f"data.root: two of the folders {names} of {root} are links to the same folder",
            hint="give each split images of its own",
        )
    return {split: splits[split] for split in SPLITS if split in splits}


def warn_if_splits(root: Path, names: Sequence[str]) -> None:
    """Warn about folders that become classes if their names, such as train2017, contain those of
    splits."""
    words = [re.findall("[a-z]+", re.sub("([A-Z])", r" \1", name).lower()) for name in names]
    likely = [any(word.startswith(SPLIT_WORDS) for word in part) for part in words]
    has_train = any(word.startswith("tr") for part in words for word in part)
    is_named = "train" in names or "training" in names
    if len(names) > 1 and (is_named or (all(likely) and has_train)):
        message = (
            "%s: the folders %s are classes; if they are splits, name them train, val and test"
        )
        log.warning(message, root, ", ".join(names))


def list_images(root: Path, config: FolderConfig, split: str) -> Listing:
    """Return the image files of a split in natural order, with their labels and classes.

    Raises MissingError if the folder does not exist, and UsageError if its contents are neither a
    labelled nor an unlabelled set.
    """
    folders = find_splits(root)
    # a class may have no image in this split
    names = [inner.name for folder in folders.values() for inner in folders_in(folder)]
    listing = list_folder(folders.get(split, root), root, config, {*names})
    listing.top = root
    if not folders and listing.classes and split == "train":
        warn_if_splits(root, listing.classes)
    if folders:
        if listing.classes:
            listing.classes = tuple(dict.fromkeys([*listing.classes, *names]))
        if split == "train":
            table = None if config.labels is None else config.labels.absolute()
            count_skipped(listing, root, deep=False, but=table)
    listing.report()
    return listing


def list_folder(root: Path, top: Path, config: FolderConfig, known: Set[str]) -> Listing:
    """List the images of one split. `top` is data.root, and `known` are the classes of all splits,
    so that one of them may have a single class."""
    check_folder(root)
    try:
        root_images, folders = images_in(root), folders_in(root)
        images_by_class = {folder: images_in(folder) for folder in folders}
        if config.labels is not None:
            return read_labelled(root, top, config)
        if not root_images:
            check_classes(root, images_by_class, known)
    except OSError as error:
        raise UsageError(f"data.root: {root} cannot be read: {error}") from None
    if root_images and folders:
        raise UsageError(
            f"data.root: {root} contains both images ({root_images[0].name}) "
            f"and sub-folders ({folders[0].name})",
            hint="put every image into the sub-folder of its class, or move the sub-folders out",
        )
    if root_images:
        return count_skipped(Listing(root, root_images), root)
    listing = Listing(
        root,
        [file for images in images_by_class.values() for file in images],
        [label for label, images in enumerate(images_by_class.values()) for _ in images],
        tuple(folder.name for folder in images_by_class),
    )
    count_skipped(listing, root, deep=False)
    for folder in folders:
        count_skipped(listing, folder)
    return listing


def read_labelled(root: Path, top: Path, config: FolderConfig) -> Listing:
    """List all images below a folder that have a row in the file data.labels, which names them
    relative to `top` or to `root`, a split of it."""
    assert config.labels is not None
    images = [file for folder in [root, *all_folders(root)] for file in images_in(folder)]
    path = config.labels.absolute()
    everything = [top, *all_folders(top)]
    listed = images if root == top else [file for f in everything for file in images_in(f)]
    by_file, missing, factors = read_label_file(
        path, top, listed, config.file_column, config.label_column, config.factors
    )
    files = [file for file in images if file in by_file]
    values = dict(zip(by_file, as_values([*by_file.values()]), strict=True))  # of all splits
    listing = Listing(root, files, [values[file] for file in files])
    for i, name in enumerate(config.factors):
        column = as_values([factors[file][i] for file in by_file])  # of all splits
        value_of = dict(zip(by_file, column, strict=True))
        listing.factors[name] = [value_of[file] for file in files]
    listing.skipped[f"without a row in {path.name}"] = len(images) - len(files)
    if root == top or root.name.lower().startswith("train"):  # once
        listing.skipped[f"named in {path.name}, but missing"] = missing
    for folder in [root, *all_folders(root)]:
        count_skipped(listing, folder, deep=False, but=path)
    listing.skipped = +listing.skipped  # without zeros
    return listing


def count_skipped(
    listing: Listing, folder: Path, *, deep: bool = True, but: Path | None = None
) -> Listing:
    """Count the files of a folder that are not images and, if `deep`, all files in its folders."""
    entries = [*folder.iterdir()]
    files = [path for path in entries if path.name[0] != "." and not path.is_dir()]
    regular = [path for path in files if path.is_file() or path.is_symlink()]
    others = [p for p in regular if p.suffix.lower() not in EXTENSIONS and p != but]
    hidden = [path for path in entries if path.name[0] == "."]
    inside: list[Path] = []
    for path in hidden:
        with suppress(OSError):  # a folder that may not be read, such as .Trash-0
            inside += path.iterdir() if path.is_dir() else []
    images = [path for path in [*hidden, *inside] if path.suffix.lower() in EXTENSIONS]
    if images:
        listing.skipped["whose names, or those of their folders, begin with a dot"] += len(images)
    if special := sum(not p.is_file() and not p.is_symlink() for p in files):
        listing.skipped["that are no regular files"] += special
    for suffix, count in Counter(path.suffix.lower() for path in others).items():
        listing.skipped[f"with the extension {suffix}" if suffix else "without an extension"] += (
            count
        )
    if deep:
        for inner in all_folders(folder):
            found = sum(p.name[0] != "." and not p.is_dir() for p in inner.iterdir())
            place = inner.relative_to(listing.root).parts[:2]
            listing.skipped[f"in the deeper folder {Path(*place)}"] += found
        listing.skipped = +listing.skipped
    return listing


def check_folder(root: Path) -> None:
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        close = similar_paths(root, (path for path in root.parent.glob("*") if path.is_dir()))
        raise MissingError(
            f"data.root: {root} {problem}",
            hint=close or "--set data.root=FOLDER with a folder that contains images",
        )


def check_classes(root: Path, images_by_class: dict[Path, list[Path]], known: Set[str]) -> None:
    """Raise UsageError unless there are at least two classes and all sub-folders contain images.
    `known` are further classes."""
    empty = [folder for folder, images in images_by_class.items() if not images]
    if len(empty) == len(images_by_class):
        raise UsageError(
            f"data.root: no images in {root} or its sub-folders",
            details=[*describe_contents(root), f"supported extensions: {' '.join(EXTENSIONS)}"],
            hint=(root.name.lower() in SPLIT_FOLDERS and split_hint(root, empty))
            or nested_folder_hint(empty)
            or "--set data.root=FOLDER with images in FOLDER/CLASS or in FOLDER/train/CLASS, "
            "FOLDER/val/CLASS and FOLDER/test/CLASS",
        )
    if empty:
        raise UsageError(
            f"data.root: no images in {', '.join(map(str, empty[:5]))}; "
            f"each sub-folder of {root} is a class",
            details=describe_contents(empty[0]),
            hint="move folders that are not classes elsewhere, or remove them if they are empty",
        )
    if len(images_by_class) == 1 and len(known) < 2:
        (only,) = images_by_class
        raise UsageError(
            f"data.root: {root} has only one sub-folder, {only.name}, "
            "but labels need at least two classes",
            hint=f"{data_option('', root=only)}, to load its images without labels",
        )


def describe_contents(folder: Path) -> list[str]:
    """Describe where the files below a folder are and what extensions they have."""
    counts: Counter[tuple[str, str]] = Counter()
    for inner in [folder, *all_folders(folder)]:
        files = [path for path in inner.iterdir() if path.is_file() and path.name[0] != "."]
        counts.update((str(inner), path.suffix.lower()) for path in files)
    listed = [
        f"{n} {suffix or 'other'} {pluralized(n, 'file')} in {place}"
        for (place, suffix), n in counts.items()
    ]
    return [*listed[:MAX_LISTED], *(["..."] if len(listed) > MAX_LISTED else [])]


def split_hint(root: Path, empty: list[Path]) -> str:
    """Return what to do about the folder of a split without images of classes."""
    deeper = [folder for folder in empty if any(map(images_in, folders_in(folder)))]
    if deeper:
        return f"move the sub-folders of {deeper[0]} into {root}, also in the other splits"
    return f"put images into {root}, or remove it"


def nested_folder_hint(empty: list[Path]) -> str:
    """Return a hint if the class folders are one level deeper, as in images/cat and images/dog."""
    if SPLIT_FOLDERS.keys() & {folder.name.lower() for folder in empty}:
        return ""  # it would be the folder of one split
    deep = [folder for folder in empty if any(map(images_in, all_folders(folder)))]
    nested = [f for f in deep if sum(bool(images_in(inner)) for inner in folders_in(f)) > 1]
    return data_option("", root=nested[0]) if len(nested) == len(deep) == 1 else ""


def images_in(folder: Path) -> list[Path]:
    files = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and path.name[0] != "."
        if path.is_file() or path.is_symlink()  # a dangling link is an unreadable image
    )
    return sorted(files, key=by_name)


def folders_in(folder: Path) -> list[Path]:
    inner = (path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())
    return sorted(inner, key=by_name)


def all_folders(folder: Path) -> Iterable[Path]:
    """All folders below a folder. Links to folders are not followed, as they may form a circle."""
    for inner in folders_in(folder):
        if not inner.is_symlink():
            yield inner
            yield from all_folders(inner)


def by_name(path: Path) -> tuple[list[int | str], str]:
    return natural_key(path.name)
