"""Reads the labels of image files from a table."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from latentforge.data.arrays import data_option
from latentforge.data.labels import is_one_hot
from latentforge.errors import MissingError, UsageError, did_you_mean
from latentforge.io.paths import check_regular

log = logging.getLogger("latentforge")

LABEL_NAMES = ("label", "class", "category", "target", "y")
SPLIT_COLUMNS = ("split", "subset", "set", "fold", "partition")
DECIMAL = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]*)?")
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
    places, unclear = file_names(images, root)
    rows = [[PurePath(v).as_posix() if v.startswith("./") else v for v in row] for row in rows]
    example = images[0].relative_to(root).as_posix() if images else "1.png"
    named = [name for name in header if name.lower() in FILE_NAMES]
    if file_column:
        column = choose_column(path, header, file_column, "file_column")
    else:  # numbers of classes can be names of files too, but of few
        named = named if len(named) == 1 else header
        matches = {
            name: len({row[header.index(name)] for row in rows} & {*places}) for name in named
        }
        column, *others = sorted(matches, key=lambda name: -matches[name])
        if not matches[column]:
            raise UsageError(
                f"data.labels: no column of {path} names an image in {root}",
                details=[f"its columns are {', '.join(header)}"],
                hint=f"name files as in that folder, for example {example}",
            )
        i, j = header.index(column), header.index(others[0] if others else column)
        named_by_both = [(places.get(row[i]), places.get(row[j])) for row in rows]
        differ = any(one and other and one != other for one, other in named_by_both)
        # numbers without an extension can have another meaning
        if differ and any(PurePath(row[j]).suffix for row in rows):
            raise UsageError(
                f"data.labels: two columns of {path} name images: {column} and {others[0]}",
                hint=data_option("", file_column=column),
            )
    if column in places:
        raise UsageError(
            f"data.labels: the first line of {path} names an image, not the columns",
            hint="add a first line, for example file,label",
        )
    others = [name for name in header if name != column]
    unused = [name for name in others if name.lower() in SPLIT_COLUMNS]
    if unused and not label_column:
        others = [name for name in others if name not in unused]
        log.warning("%s: column %s is not used: splits come from folders", path, unused[0])
    if label_column:
        label = choose_column(path, header, label_column, "label_column")
    elif len(others) > 1 and are_one_hot(header, rows, others):
        indices = [header.index(name) for name in others]
        rows = [[*row, others[[float(row[i]) for i in indices].index(1)]] for row in rows]
        header, label = [*header, "one-hot"], "one-hot"
    else:
        known = [name for name in others if name.lower() in LABEL_NAMES]
        candidates = others if len(others) == 1 else known
        if len(candidates) != 1:
            counts = {name: len({row[header.index(name)] for row in rows}) for name in others}
            raise UsageError(
                f"data.labels: it is not clear which column of {path} contains the labels: "
                f"{', '.join(others) or 'there is only one column'}",
                details=[f"{name}: {count} different values" for name, count in counts.items()],
                hint=suggest_label_column(counts, len(rows)),
            )
        [label] = candidates
    found: dict[Path, str] = {}
    missing = 0
    i, j = header.index(column), header.index(label)
    for number, row in enumerate(rows, 2):
        file, value = places.get(row[i]), row[j].strip()
        if row[i] in unclear:
            one, other = (image.relative_to(root).as_posix() for image in unclear[row[i]][:2])
            raise UsageError(
                f"data.labels: {row[i]} in line {number} of {path} can be {one} or {other}",
                hint=f"write the path from {root}, as in {one}",
            )
        if file is None:
            missing += 1
        elif not value:
            raise UsageError(
                f"data.labels: line {number} of {path} has no label",
                hint="add it, or remove the line",
            )
        elif found.setdefault(file, value) != value:
            raise UsageError(
                f"data.labels: {path} gives {file.name} the labels {found[file]!r} and {value!r}",
                hint="remove one of the two lines",
            )
    if not found:
        raise UsageError(f"data.labels: the column {column} of {path} names no image in {root}")
    return found, missing


def are_one_hot(header: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[str]) -> bool:
    """Whether columns contain 0 and 1, with one 1 in each row: their names are the classes then."""
    indices = [header.index(name) for name in names]
    try:
        return is_one_hot(np.array([[float(row[i]) for i in indices] for row in rows]))
    except ValueError:
        return False


def as_values(labels: Sequence[str]) -> Sequence[str | int | float]:
    """Return labels as numbers if all are numbers, so that the rules for numbers apply to them.
    Texts such as 007 remain texts."""
    try:
        numbers = [int(text) for text in labels]
        is_same = [*map(str, numbers)] == [*labels] and all(abs(n) < 2**63 for n in numbers)
        return numbers if is_same else labels
    except ValueError:
        pass
    try:
        values = [float(text) for text in labels]
    except ValueError:
        return labels
    plain = all(DECIMAL.fullmatch(text) for text in labels)
    real = any(value != round(value) for value in values if math.isfinite(value))
    return values if plain or real else labels  # 1e3 is a name, 1.0 and 2.5e-3 are numbers


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV or TSV file."""
    check_regular(path, "data.labels")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise MissingError(f"data.labels: the file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"data.labels: {path} cannot be read as text: {error}",
            hint="save it as CSV in UTF-8, not compressed",
        ) from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        lines = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise UsageError(f"data.labels: {path} is not a table: {error}") from None
    if len(lines) < 2:
        raise UsageError(
            f"data.labels: {path} has no rows", hint="add a line with file and label for each image"
        )
    header, *rows = lines
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UsageError(
                f"data.labels: line {number} of {path} has {len(row)} values, the first line has "
                f"{len(header)}",
                hint="put values that contain a delimiter into quotes",
            )
    return [name.strip() for name in header], [[value.strip() for value in row] for row in rows]


def choose_column(path: Path, header: Sequence[str], name: str, option: str) -> str:
    if name not in header:
        hint = did_you_mean(name, header) or f"columns are {', '.join(header)}"
        raise UsageError(f"data.{option}: {path} has no column {name!r}", hint=hint)
    return name


def suggest_label_column(counts: Mapping[str, int], rows: int) -> str:
    """Suggest the only column that has several values, each in several rows. `counts` is the number
    of different values by column."""
    likely = [name for name, count in counts.items() if 1 < count <= rows / 2]
    if len(likely) == 1:
        return data_option("", label_column=likely[0])
    return "--set data.label_column=COLUMN with one of them" if counts else "add a column"


def file_names(images: Sequence[Path], root: Path) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Return the images by the texts that name them without doubt: the path relative to `root`, or
    if they are unique the path below a sub-folder, the name, and these without the extension. Also
    returns the images of each text that names several."""
    paths: dict[str, Path] = {}
    named: dict[str, Path] = {}
    unclear: dict[str, list[Path]] = {}
    for image in images:
        relative = image.relative_to(root)
        paths |= {relative.as_posix(): image, str(image): image}
        below = [PurePath(*relative.parts[i:]) for i in range(len(relative.parts))]
        for text in {str(p.as_posix()) for path in below for p in (path, path.with_suffix(""))}:
            if text in named:
                unclear.setdefault(text, [named[text]]).append(image)
            named.setdefault(text, image)
    unclear = {text: found for text, found in unclear.items() if text not in paths}
    return {text: image for text, image in named.items() if text not in unclear} | paths, unclear
