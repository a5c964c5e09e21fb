"""Reads .npz and .npy files. The core checks the values."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from latentforge.contracts import Arrays
from latentforge.data.preparation import SPLITS
from latentforge.errors import UsageError
from latentforge.io.npz import Array, Member, list_keys, map_array, open_archive, read_member
from latentforge.io.text import are, counted

log = logging.getLogger("latentforge")

IMAGES = ("x", "images", "data")
LABELS = ("y", "labels", "label", "target", "targets")
CLASSES = ("classes",)
FACTOR = "factor_"  # before the name of a factor
SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
SPLIT_NAMES["validation"] = "validation"


def find_keys(path: Path, keys: list[str]) -> dict[str, dict[str, str]]:
    """Return the key of the images, labels and classes (x, y, classes) of each split, and of its
    factors (factor_NAME). Keys without the name of a split belong to "train"; classes are shared by
    all splits. x and y take precedence over other names. Raises UsageError if two other keys have
    the same role."""
    found: dict[str, dict[str, str]] = {}
    own_names: dict[str, str] = {}  # keys without the name of a split
    names = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
    for key in keys:
        if factor := re.fullmatch(rf"(?:({names})_)?factor_(.+?)(?:_({names}))?", key, re.I):
            add_factor(path, found, key, factor)
            continue
        pattern = rf"^({names})_?(?=[a-z]+$)|_({names})$"  # as in train_x, trainX and x_train
        split = re.search(pattern, key.lower())
        name = re.sub(pattern, "", key.lower())
        place = SPLIT_NAMES[split[1] or split[2]] if split else "train"
        for role, accepted in (("x", IMAGES), ("y", LABELS), ("classes", CLASSES)):
            if name in accepted:
                roles = found.setdefault(place, {})
                if role in roles and role not in (name, own_names.get(roles[role])):
                    raise UsageError(
                        f"{path} has the arrays {roles[role]!r} and {key!r}, and it is not clear "
                        f"which contains the {accepted[-1]} of {place}",
                        hint="save the file without one of them",
                    )
                if role not in roles or name == role:
                    roles[role] = key
                own_names[key] = name
    if not any("x" in roles for roles in found.values()):  # `train` and `test` are the images
        for key in keys:
            if key.lower() in SPLIT_NAMES:
                found.setdefault(SPLIT_NAMES[key.lower()], {})["x"] = key
    return found


def add_factor(
    path: Path, found: dict[str, dict[str, str]], key: str, match: re.Match[str]
) -> None:
    """Add the key of a factor to its split."""
    before, name, after = match.groups()
    roles = found.setdefault(SPLIT_NAMES[(before or after or "train").lower()], {})
    if (other := roles.setdefault(f"{FACTOR}{name}", key)) != key:
        raise UsageError(
            f"{path} has the arrays {other!r} and {key!r}, which are the same factor",
            hint="save the file without one of them",
        )


def report_unread(path: Path, keys: list[str], found: dict[str, dict[str, str]]) -> None:
    """Announce the arrays that are not read, such as labels without images."""
    used = {key for roles in found.values() if "x" in roles for key in roles.values()}
    used |= {roles["classes"] for roles in found.values() if "classes" in roles}
    if unread := [key for key in keys if key not in used]:
        unused = f"{counted(len(unread), 'array')} {are(len(unread))}"
        log.warning("%s: %s not read: %s", path, unused, some(unread))


def list_splits(path: Path) -> tuple[str, ...]:
    with open_archive(path, "data.path") as archive:
        keys = list_keys(archive)
    found = find_keys(path, keys)
    splits = tuple(split for split in SPLITS if "x" in found.get(split, {}))
    if splits and "train" not in splits:
        used = ", ".join(found[split]["x"] for split in splits)
        raise UsageError(
            f"{path} has {used}, but no images for training; existing keys: {some(keys)}",
            hint="numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
        )
    return splits or ("train",)


def read_npz(path: Path, split: str) -> Arrays:
    """Read the arrays of a split. Raises MissingError if the file does not exist. Other errors are
    UsageErrors that name the file and the key."""
    with open_archive(path, "data.path") as archive:
        keys = list_keys(archive)
        found = find_keys(path, keys)
        own = found.get(split, {})
        key = own.get("x", "x")
        x = check_shape(read_member(archive, path, key)).values()
        if split == "train":
            report_unread(path, keys, found)
        y = read_member(archive, path, own["y"]).values() if "y" in own else None
        factors = {
            role.removeprefix(FACTOR): read_member(archive, path, key).values()
            for role, key in sorted(own.items())
            if role.startswith(FACTOR)
        }
        classes: tuple[str, ...] = ()
        if shared := own.get("classes") or found.get("train", {}).get("classes"):
            classes = read_classes(read_member(archive, path, shared))
    classes = classes if y is not None else ()
    return Arrays(x, y, classes, where=place(path, key), factors=factors)


def read_npy(path: Path, labels_path: Path | None) -> Arrays:
    """Memory-map the images of an .npy file, and read the labels from another .npy file."""
    x = check_shape(map_array(path, "data.path")).values()
    if labels_path is None:
        return Arrays(x, where=str(path))
    labels = map_array(labels_path.absolute(), "data.labels")
    if labels.shape[:1] not in (x.shape[:1], x.shape[-1:]):  # the images may be the last axis
        raise labels.error(f"has shape {labels.shape}, but x has {counted(len(x), 'example')}")
    return Arrays(x, np.array(labels.values()), where=str(path))


def check_shape(x: Member) -> Member:
    """Raise UsageError before values are read, if they cannot be images or vectors."""
    if 0 in x.shape:
        raise x.error(f"has no examples: its shape is {x.shape}")
    return x


def read_classes(classes: Member) -> tuple[str, ...]:
    if classes.dtype.kind != "U" or len(classes.shape) != 1:
        raise classes.error(
            f"has dtype {classes.dtype} and shape {classes.shape}; "
            "class names must be a one-dimensional array of strings",
            "numpy.array(['cat', 'dog'])",
        )
    names: Array = classes.values()
    return tuple(map(str, names))


def place(path: Path, key: str) -> str:
    return str(path) if key == "x" else f"{path}, {key}"


def some(keys: list[str]) -> str:
    return ", ".join(map(repr, keys[:10])) or "none"
