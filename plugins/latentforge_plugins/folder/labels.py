"""Reads the labels of image files from a table."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePath

import numpy as np

from latentforge.data.arrays import data_option
from latentforge.data.labels import is_one_hot
from latentforge.errors import MissingError, UsageError, did_you_mean, similar_paths
from latentforge.io.paths import check_regular
from latentforge.io.text import are, counted

log = logging.getLogger("latentforge")

LABEL_NAMES = ("label", "class", "category", "target", "y")
SPLIT_COLUMNS = ("split", "subset", "set", "fold", "partition")
DECIMAL = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]*)?")
FILE_NAMES = ("file", "filename", "file_name", "path", "image", "image_path", "img")


def read_label_file(
    path: Path,
    root: Path,
    images: Sequence[Path],
    file_column: str,
    label_column: str,
    factors: Sequence[str] = (),
) -> tuple[dict[Path, str], int, dict[Path, tuple[str, ...]]]:
    """Return the label of each image that has a row, the number of rows without an image, and the
    values of the columns `factors` for each image.

    A row names a file relative to `root`, with or without its extension, or by its name alone if
    that is unique. Raises MissingError if there is no such table, and UsageError if it is not
    clear which columns are meant or which label an image has.
    """
    header, rows = read_table(path)
    places, unclear = file_names(images, root)
    columns: dict[str, list[str]] = {
        name: [row[i] for row in rows] for i, name in enumerate(header)
    }
    if file_column:
        column = choose_column(path, header, file_column, "file_column")
    else:
        column = find_file_column(path, root, columns, places)
    if column in places:
        raise UsageError(
            f"data.labels: the first line of {path} names an image, not the columns",
            hint="add a first line, for example file,label",
        )
    if label_column:
        used: Sequence[str] = [choose_column(path, header, label_column, "label_column")]
        labels: Sequence[str] = columns[used[0]]
    else:
        others = {k: v for k, v in columns.items() if k != column and k not in factors}
        used, labels = find_labels(path, others)
    report_unused(path, {*columns} - {column, *used, *factors}, header)
    values = read_factor_columns(path, columns, column, factors)
    found: dict[Path, str] = {}
    found_values: dict[Path, tuple[str, ...]] = {}
    missing = 0
    for number, (name, value) in enumerate(zip(columns[column], labels, strict=True), 2):
        file = places.get(name)
        if name in unclear:
            one, other = (image.relative_to(root).as_posix() for image in unclear[name][:2])
            raise UsageError(
                f"data.labels: {name} in line {number} of {path} can be {one} or {other}",
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
        elif found_values.setdefault(file, values[number - 2]) != values[number - 2]:
            raise UsageError(
                f"data.factors: {path} gives {file.name} two values of a factor",
                hint="remove one of the two lines",
            )
    if not found:
        raise UsageError(f"data.labels: the column {column} of {path} names no image in {root}")
    return found, missing, found_values


def report_unused(path: Path, unused: Set[str], header: Sequence[str]) -> None:
    """Announce the columns that are not read, except those of splits, which `find_labels` does."""
    names = [name for name in header if name in unused and name.lower() not in SPLIT_COLUMNS]
    if names:
        columns = f"{counted(len(names), 'column')} {are(len(names))}"
        message = "%s: %s not read: %s (data.factors makes them factors)"
        log.warning(message, path, columns, ", ".join(names[:10]))


def read_factor_columns(
    path: Path, columns: Mapping[str, Sequence[str]], file_column: str, factors: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return the values of the factors in each row. Raises UsageError for an unknown column and a
    missing value."""
    for name in factors:
        if choose_column(path, [*columns], name, "factors") == file_column:
            raise UsageError(f"data.factors: the column {name} of {path} names the images")
        if "" in columns[name]:
            raise UsageError(
                f"data.factors: line {columns[name].index('') + 2} of {path} has no {name}",
                hint="add it, or remove the line",
            )
    rows = len(columns[file_column])
    return [tuple(columns[name][i] for name in factors) for i in range(rows)]


def find_file_column(
    path: Path, root: Path, columns: Mapping[str, Sequence[str]], places: Mapping[str, Path]
) -> str:
    """Return the column that names images: the one with the most names in `places`, because numbers
    of classes can be names of files too, but of few."""
    named = [name for name in columns if name.lower() in FILE_NAMES]
    named = named if len(named) == 1 else [*columns]
    matches = {name: len({*columns[name]} & {*places}) for name in named}
    column, *others = sorted(matches, key=lambda name: -matches[name])
    if not matches[column]:
        example = next((image.relative_to(root) for image in places.values()), PurePath("1.png"))
        raise UsageError(
            f"data.labels: no column of {path} names an image in {root}",
            details=[f"its columns are {', '.join(columns)}"],
            hint=f"name files as in that folder, for example {example.as_posix()}",
        )
    other = others[0] if others else column
    pairs = zip(columns[column], columns[other], strict=True)
    named_by_both = [(places.get(one), places.get(two)) for one, two in pairs]
    differ = any(one and two and one != two for one, two in named_by_both)
    # numbers without an extension can have another meaning
    if differ and any(PurePath(name).suffix for name in columns[other]):
        raise UsageError(
            f"data.labels: two columns of {path} name images: {column} and {other}",
            hint=data_option("", file_column=column),
        )
    return column


def find_labels(
    path: Path, columns: Mapping[str, Sequence[str]]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the columns that contain the labels, and the labels, from the columns of a table that
    do not name the files: from the only one, from the one with a usual name, or from one-hot
    columns, whose names are the classes."""
    unused = [name for name in columns if name.lower() in SPLIT_COLUMNS]
    if unused:
        log.warning("%s: column %s is not used: splits come from folders", path, unused[0])
    columns = {name: values for name, values in columns.items() if name not in unused}
    names, rows = [*columns], [*zip(*columns.values(), strict=True)]
    if len(names) > 1 and are_one_hot(rows):
        return names, [names[[float(value) for value in row].index(1)] for row in rows]
    known = [name for name in names if name.lower() in LABEL_NAMES]
    candidates = names if len(names) == 1 else known
    if len(candidates) != 1:
        counts = {name: len({*values}) for name, values in columns.items()}
        raise UsageError(
            f"data.labels: it is not clear which column of {path} contains the labels: "
            f"{', '.join(names) or 'there is only one column'}",
            details=[
                f"{name}: {counted(count, 'different value')}" for name, count in counts.items()
            ],
            hint=suggest_label_column(counts, len(rows)),
        )
    return candidates, columns[candidates[0]]


def are_one_hot(rows: Sequence[Sequence[str]]) -> bool:
    """Whether columns contain 0 and 1, with one 1 in each row: their names are the classes then."""
    try:
        return is_one_hot(np.array([[float(value) for value in row] for row in rows]))
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
    if path.is_dir():
        raise UsageError(f"data.labels: {path} is a folder, but it must be a CSV or TSV file")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        close = similar_paths(path, path.parent.glob(f"*{path.suffix}"))
        hint = close or "give the path of an existing file"
        raise MissingError(f"data.labels: the file {path} does not exist", hint=hint) from None
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
    if text.lstrip().startswith(("{", "[")):
        raise UsageError(
            f"data.labels: {path} is JSON, not a table",
            hint="save it as CSV with the columns file and label, a line for each image",
        )
    if len(lines) < 2:
        raise UsageError(
            f"data.labels: {path} has no rows", hint="add a line with file and label for each image"
        )
    header, *rows = [[as_cell(value) for value in line] for line in lines]
    if len({*header}) < len(header):
        name = next(name for name in header if header.count(name) > 1)
        raise UsageError(
            f"data.labels: two columns of {path} are called {name!r}", hint="rename one of them"
        )
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            for place, first in ((1, header[0]), (number, row[0])):
                if first.startswith("#"):
                    raise UsageError(
                        f"data.labels: line {place} of {path} is a comment",
                        hint="remove such lines",
                    )
            raise UsageError(
                f"data.labels: line {number} of {path} has {counted(len(row), 'value')}, the first "
                f"line has {len(header)}",
                hint="put values that contain a delimiter into quotes",
            )
    return header, rows


def as_cell(value: str) -> str:
    value = value.strip()
    return PurePath(value).as_posix() if value.startswith("./") else value


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
