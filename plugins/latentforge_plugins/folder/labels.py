"""Reads the labels of image files from a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePath

from latentforge.data.arrays import data_option
from latentforge.errors import MissingError, UsageError, did_you_mean
from latentforge.io.paths import check_regular

LABEL_NAMES = ("label", "class", "category", "target", "y")
FILE_NAMES = ("file", "filename", "file_name", "path", "image", "image_path", "img")


def read_label_file(
    path: Path, root: Path, images: Sequence[Path], file_column: str, label_column: str
) -> tuple[dict[Path, str], int]:
    """Return the label of each image that has a row, and the number of rows without an image.

    A row names a file relative to `root`, with or without its extension, or by its name alone if
    that is unique. Raises MissingError if there is no such table, and UsageError if it is not
    clear which columns are meant or which label an image has.
    """
    header, rows = read_table(path)
    places = file_names(images, root)
    named = [name for name in header if name.lower() in FILE_NAMES]
    if file_column:
        column = choose_column(path, header, file_column, "file_column")
    else:  # numbers of classes can be names of files too, but of few
        named = named if len(named) == 1 else header
        matches = {
            name: len({row[header.index(name)] for row in rows} & {*places}) for name in named
        }
        column = max(matches, key=lambda name: matches[name])
        if not matches[column]:
            raise UsageError(
                f"data.labels: no column of {path} names an image in {root}",
                details=[f"its columns are {', '.join(header)}", f"an image is {images[0].name}"]
                if images
                else [f"there are no images in {root}"],
                hint="name files as in that folder, for example cat/001.png",
            )
    others = [name for name in header if name != column]
    if label_column:
        label = choose_column(path, header, label_column, "label_column")
    else:
        known = [name for name in others if name.lower() in LABEL_NAMES]
        candidates = others if len(others) == 1 else known
        if len(candidates) != 1:
            raise UsageError(
                f"data.labels: it is not clear which column of {path} contains the labels: "
                f"{', '.join(others) or 'there is only one column'}",
                hint=data_option("", label_column=others[0]) if others else "add a column",
            )
        [label] = candidates
    found: dict[Path, str] = {}
    missing = 0
    i, j = header.index(column), header.index(label)
    for number, row in enumerate(rows, 2):
        file, value = places.get(row[i]), row[j].strip()
        if file is None:
            missing += 1
        elif not value:
            raise UsageError(f"data.labels: line {number} of {path} has no label")
        elif found.setdefault(file, value) != value:
            raise UsageError(
                f"data.labels: {path} gives {file.name} the labels {found[file]!r} and {value!r}"
            )
    if not found:
        raise UsageError(f"data.labels: the column {column} of {path} names no image in {root}")
    return found, missing


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV or TSV file."""
    check_regular(path, "data.labels")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise MissingError(f"data.labels: the file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"data.labels: {path} cannot be read as text: {error}") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        header, *rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    except (csv.Error, ValueError) as error:
        raise UsageError(f"data.labels: {path} is not a table: {error}") from None
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UsageError(
                f"data.labels: line {number} of {path} has {len(row)} values, the first line has "
                f"{len(header)}"
            )
    return [name.strip() for name in header], [[value.strip() for value in row] for row in rows]


def choose_column(path: Path, header: Sequence[str], name: str, option: str) -> str:
    if name not in header:
        hint = did_you_mean(name, header) or f"columns are {', '.join(header)}"
        raise UsageError(f"data.{option}: {path} has no column {name!r}", hint=hint)
    return name


def file_names(images: Sequence[Path], root: Path) -> dict[str, Path]:
    """Return the images by the texts that name them without doubt: the path relative to `root`, or
    if they are unique the path below a sub-folder, the name, and these without the extension."""
    paths: dict[str, Path] = {}
    named: dict[str, Path | None] = {}
    for image in images:
        relative = image.relative_to(root)
        paths |= {relative.as_posix(): image, str(image): image}
        below = [PurePath(*relative.parts[i:]) for i in range(len(relative.parts))]
        for text in {str(p.as_posix()) for path in below for p in (path, path.with_suffix(""))}:
            named[text] = None if text in named else image
    return {text: image for text, image in named.items() if image is not None} | paths
