"""Splits validation and test images off the training images. Frames of a file stay together."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence

import torch

from latentforge.data.arrays import data_option
from latentforge.data.images import ImageSplit
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge.seeding import generator

FRAME = re.compile(r"#\d+$")  # of the name of an image in a file with several
FEW = 10  # fewer images may be other axes that were taken for the images
FILES_TOGETHER = "%s: the %s split has %s instead of %d, because the frames of a file stay together"

log = logging.getLogger("latentforge")


def split_off(
    splits: dict[str, ImageSplit], split: str, fraction: float, seed: int, name: str
) -> None:
    """Move a fraction of the training images to a new split, both in the order of the source."""
    if not 0.0 <= fraction < 1.0:
        raise UsageError(f"the {split} fraction is {fraction}; it must be at least 0 and below 1")
    images = splits["train"]
    n = len(images)
    count = round(n * fraction)
    if not 0 < count < n:
        fraction_of_one = math.ceil(50.1 / n) / 100
        give = f"give images for the {split} split, or more images"
        raise UsageError(
            f"dataset {name}: a {split} fraction of {fraction} of {counted(n, 'image')} is {count} "
            f"and leaves {n - count} for training; neither may be 0",
            details=[f"an image has the shape {images.spec.shape}"] if n < FEW else [],
            hint=f"{data_option(name, **{split: fraction_of_one})}, or {give}" if n > 1 else give,
        )
    random = generator("cpu", f"split {split}", seed)
    if files := group_frames(images):
        chosen = choose_files(files, count, random)
        if not chosen:
            none = f"{data_option(name, validation=0)}, or " if split == "validation" else ""
            raise UsageError(
                f"dataset {name}: all {n} images are frames of one file, which cannot be split",
                hint=f"{none}give images for the {split} split",
            )
        is_held_out = torch.tensor([file in chosen for file in files])
        if abs(int(is_held_out.sum()) - count) > max(1, 0.1 * count):
            held_out = counted(int(is_held_out.sum()), "image")
            log.warning(FILES_TOGETHER, name, split, held_out, count)
    else:
        is_held_out = torch.zeros(n, dtype=torch.bool)
        is_held_out[torch.randperm(n, generator=random)[:count]] = True
    splits["train"] = images.select((~is_held_out).nonzero().flatten())
    splits[split] = images.select(is_held_out.nonzero().flatten())


def choose_files(files: Sequence[str], count: int, random: torch.Generator) -> set[str]:
    """Choose files at random that have together at most `count` images, or the smallest file if
    each has more. Empty if there is only one file."""
    sizes = Counter(files)
    names, chosen, held_out = [*sizes], set(), 0
    for i in torch.randperm(len(names), generator=random).tolist():
        if held_out + sizes[names[i]] <= count:
            chosen.add(names[i])
            held_out += sizes[names[i]]
    smallest = min(names, key=lambda name: sizes[name])
    return chosen or ({smallest} if len(names) > 1 else set())


def group_frames(images: ImageSplit) -> list[str]:
    """Return the file of each image without the number of the frame; empty if no file has several
    frames. The frames of a file are alike: the held-out splits must not contain some of them."""
    files = images.files
    if files is None or not any(FRAME.search(file) for file in files):
        return []
    return [FRAME.sub("", files[i]) for i in images.origins().tolist()]
