"""Labels: from what a dataset returns to indices of class names that all splits share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentforge.errors import UsageError
from latentforge.io.text import are, counted, escape_unprintable, natural_key

Array = np.ndarray[Any, Any]

MAX_CLASSES = 65_536
MAX_LISTED = 12  # maximum number of classes in a message
UNLABELED = -1


@dataclass(frozen=True)
class Labels:
    """The labels of one split: integers, or strings. `classes` are the names that the dataset
    gives; integers index them."""

    values: Array  # (N,), int64 or str
    classes: tuple[str, ...]
    where: str
    note: str = ""  # how they were converted
    columns: int = 0  # of one-hot rows without names


def read_labels(y: Any, count: int, classes: Sequence[str], where: str) -> Labels:
    """Read one label for each of `count` examples: numbers, strings, a column, or one-hot rows.
    Raises UsageError if they are none of these, or if some are missing."""
    names = tuple(escape_unprintable(str(name)) for name in classes)
    check_count(len(names), where)
    if len({*names}) < len(names):
        [(name, _)] = Counter(names).most_common(1)
        raise UsageError(f"{where}: two classes are named {name!r}", hint="rename one of them")
    try:
        values = y.detach().cpu().numpy() if isinstance(y, Tensor) else as_array(y)
    except ValueError:
        raise UsageError(f"{where}: rows of labels have different lengths") from None
    note, columns = "", 0
    if values.ndim == 2 and len(values) == count and values.shape[1] == 1:
        values, note = values[:, 0], f"a column {values.shape}"
    elif values.ndim == 2 and len(values) == count and is_one_hot(values):
        if not names:
            columns = values.shape[1]
            names = tuple(map(str, range(columns)))
        values, note = values.argmax(1), f"one-hot rows {values.shape}"
    if values.shape != (count,):
        faulty = count_faulty_rows(values) if values.ndim == 2 else 0
        rows = "" if values.ndim != 2 else f" ({counted(faulty, 'row')} {are(faulty)} not one-hot)"
        hint = f"give one label for each example, shape ({count},), or one-hot rows"
        if values.ndim == 2 and len(values) == count and are_probabilities(values):
            hint = "y.argmax(1) is the most probable class of each example"
        raise UsageError(
            f"{where}: y has shape {values.shape}, but x has {counted(count, 'example')}{rows}",
            hint=hint,
        )
    if values.dtype.kind == "O":
        values = read_objects(values, where)
    match values.dtype.kind:
        case "i" | "u":
            values = values.astype(np.int64)
        case "b":
            values, note = values.astype(np.int64), note or "False and True"
        case "f":
            values, note = read_floats(values, where), note or "whole numbers stored as floats"
        case "U" | "S":
            values = np.array([escape_unprintable(as_text(value)) for value in values.tolist()])
        case _:
            raise UsageError(
                f"{where}: y is {values.dtype}, but labels must be integers or strings"
            )
    return Labels(values, names, where, note, columns)


def as_array(y: Any) -> Array:
    """Convert labels to an array. The values of a list keep their types: NumPy would convert a
    number among strings to a string."""
    if not isinstance(y, list | tuple) or any(np.ndim(label) for label in y):
        return np.asarray(y)
    values = np.empty(len(y), object)
    for i, label in enumerate(y):
        values[i] = label
    return values


def is_one_hot(values: Array) -> bool:
    """Whether each row of (N, K) is one-hot, with at least two columns."""
    return values.shape[1] >= 2 and not count_faulty_rows(values)


def are_probabilities(values: Array) -> bool:
    """Whether each row of (..., K) is a distribution over at least two classes."""
    return bool(
        values.dtype.kind == "f"
        and values.shape[-1] >= 2
        and (values >= 0).all()
        and np.allclose(values.sum(-1), 1, atol=1e-3)
    )


def count_faulty_rows(values: Array) -> int:
    """The number of rows that are not one-hot."""
    if values.dtype.kind not in "biuf":
        return len(values)
    return int((((values != 0).sum(1) != 1) | (values.max(1, initial=0) != 1)).sum())


def as_text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def read_objects(values: Array, where: str) -> Array:
    """Convert Python objects to an array of numbers or strings."""
    missing = sum(is_missing(value) for value in values.tolist())
    if missing:
        raise UsageError(
            f"{where}: {missing} of {counted(len(values), 'label')} {are(missing)} missing",
            hint="remove these examples, or give them a class of their own",
        )
    kinds = {type(value) for value in values.tolist()}
    if all(issubclass(kind, str | bytes) for kind in kinds):
        return np.array([as_text(value) for value in values.tolist()])
    try:
        numbers = np.array(values.tolist())
    except (ValueError, OverflowError):
        numbers = values
    if numbers.dtype.kind in "biuf" and numbers.ndim == 1:
        return numbers
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise UsageError(f"{where}: labels are {names}, but they must be integers or strings")


def is_missing(value: Any) -> bool:
    """Whether a label is None, NaN or pandas.NA, none of which equals itself."""
    try:
        return value is None or not bool(value == value)
    except (TypeError, ValueError):  # pandas.NA has no truth value
        return True


def read_floats(values: Array, where: str) -> Array:
    """Convert whole numbers to integers. Real numbers are no classes."""
    if bad := int((~np.isfinite(values)).sum()):
        raise UsageError(
            f"{where}: {bad} of {counted(len(values), 'label')} {are(bad)} NaN or infinite",
            hint="remove these examples, or give them a class of their own",
        )
    if (values == np.round(values)).all():
        return values.astype(np.int64)
    count = len(np.unique(values))
    if count > MAX_LISTED:
        cuts = find_cuts(values)
        hint = f"for {len(cuts) + 1} classes, labels y = numpy.digitize(y, {cuts})"
    else:
        hint = "for a class of each value, labels y = numpy.unique(y, return_inverse=True)[1]"
    raise UsageError(
        f"{where}: y has {count} different real numbers in "
        f"[{values.min():.6g}, {values.max():.6g}], which are no classes",
        hint=hint,
    )


def find_cuts(values: Array) -> list[float]:
    """Return limits between classes of real numbers: the quartiles. If a quarter of the values are
    the smallest one, such as zero, these are a class."""
    quartiles = np.unique(np.quantile(values, (0.25, 0.5, 0.75)))
    if quartiles[0] > values.min():
        return [float(f"{cut:.4g}") for cut in quartiles]
    second = values[values > values.min()].min()
    return [*map(float, (second, *quartiles[quartiles > second]))]


# ---------------------------------------------------------------- all splits together


def unite(splits: Mapping[str, Labels]) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Return the labels of all splits as int64 indices of class names that they share, these
    names, and a message if labels were converted, or "". Names are matched by name. Raises
    UsageError for labels that can be understood in two ways."""
    named = [labels for labels in splits.values() if labels.classes]
    for unnamed in splits.values():
        if named and not unnamed.classes and unnamed.values.dtype.kind != "U":
            raise UsageError(
                f"{named[0].where}: classes have names, but {unnamed.where}: labels are numbers",
                hint="give the names of the classes for every split",
            )
    first_columns, *other_columns = [labels.columns for labels in splits.values()]
    if any(columns != first_columns for columns in other_columns):
        raise UsageError(
            f"{next(iter(splits.values())).where}: the splits have one-hot rows with different "
            f"numbers of columns, or only some have them: {[first_columns, *other_columns]}",
            hint="give the labels as integers or as names of classes",
        )
    notes = list(dict.fromkeys(labels.note for labels in splits.values() if labels.note))
    if named:
        names = tuple(dict.fromkeys(name for labels in named for name in labels.classes))
        check_count(len(names), named[0].where)
        first = find_first(splits)
        place = {name: i for i, name in enumerate(names)}
        indices = {split: index_named(part, place, first) for split, part in splits.items()}
        notes += [f"numbers from 1 to {len(named[0].classes)}"] if first else []
    else:
        indices, names, note = index_unnamed(splits)
        notes += [note] if note else []
    message = describe(indices, names, "; ".join(notes)) if notes else ""
    return {k: torch.from_numpy(v) for k, v in indices.items()}, names, message


def check_count(classes: int, where: str) -> None:
    if classes > MAX_CLASSES:
        raise UsageError(
            f"{where}: y has {classes} different values, but at most {MAX_CLASSES} classes are "
            "supported"
        )


def find_first(splits: Mapping[str, Labels]) -> int:
    """Return 1 if labels that index the names of K classes go from 1 to K, otherwise 0. This is
    decided for all splits together, because a split may lack the last class."""
    numbers = [labels for labels in splits.values() if labels.values.dtype.kind != "U"]
    if not numbers or len({labels.classes for labels in numbers}) > 1:
        return 0
    low = min(int(labels.values.min()) for labels in numbers)
    high = max(int(labels.values.max()) for labels in numbers)
    return int(low == 1 and high == len(numbers[0].classes))


def index_named(labels: Labels, place: Mapping[str, int], first: int) -> Array:
    """Return indices for labels whose classes have names. `place` is the index of each name, and
    numbers start with `first`."""
    values, classes = labels.values, labels.classes or tuple(place)
    if values.dtype.kind == "U":
        if unknown := sorted({*values.tolist()} - {*classes}, key=natural_key):
            raise UsageError(
                f"{labels.where}: {some(unknown)} is no class; classes are {some(classes)}"
            )
        return np.array([place[value] for value in values.tolist()], np.int64)
    low, high = int(values.min()), int(values.max())
    if low < first or high >= first + len(classes):
        raise UsageError(
            f"{labels.where}: labels go from {low} to {high}; they must go from {first} to "
            f"{first + len(classes) - 1} for the {counted(len(classes), 'class')}"
        )
    indices: Array = np.array([place[name] for name in classes], np.int64)[values - first]
    return indices


def index_unnamed(
    splits: Mapping[str, Labels],
) -> tuple[dict[str, Array], tuple[str, ...], str]:
    """Return indices for labels without class names: each different value is a class."""
    first, *others = splits.values()
    for other in others:
        if other.values.dtype.kind != first.values.dtype.kind:
            kinds = [
                "strings" if labels.values.dtype.kind == "U" else "numbers"
                for labels in (other, first)
            ]
            raise UsageError(
                f"{other.where}: labels are {kinds[0]}, but {first.where}: labels are {kinds[1]}"
            )
    unique = np.unique(np.concatenate([labels.values for labels in splits.values()]))
    check_count(len(unique), first.where)
    if unique.dtype.kind == "U":
        ordered = sorted(unique.tolist(), key=natural_key)
        place = {name: i for i, name in enumerate(ordered)}
        indices = {
            split: np.array([place[value] for value in labels.values.tolist()], np.int64)
            for split, labels in splits.items()
        }
        return indices, tuple(ordered), "strings"
    low, high = int(unique[0]), int(unique[-1])
    if low == UNLABELED and len(unique) > 2:
        count = sum(int((labels.values == UNLABELED).sum()) for labels in splits.values())
        raise UsageError(
            f"{first.where}: {counted(count, 'label')} {are(count)} -1, which can be a class or "
            "mean that there is no label",
            hint="remove these examples, or name their class, as in 'unknown'",
        )
    if low == 0 and high == len(unique) - 1:
        names = tuple(map(str, range(high + 1)))
        return {split: labels.values for split, labels in splits.items()}, names, ""
    indices = {
        split: np.searchsorted(unique, labels.values).astype(np.int64)
        for split, labels in splits.items()
    }
    return indices, tuple(map(str, unique.tolist())), f"numbers from {low} to {high}"


def count_classes(y: Tensor, classes: Sequence[str]) -> dict[str, int]:
    """The number of examples of each class."""
    counts = torch.bincount(y.cpu(), minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def check_counts(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return warnings about labels from which a classifier cannot learn. `counts` is the number of
    images of each class by split."""
    train = counts["train"]
    used = [name for name, count in train.items() if count]
    warnings = []
    for split, others in counts.items():
        if new := [name for name, count in others.items() if count and not train[name]]:
            images = sum(others[name] for name in new)
            warnings.append(f"no training image is of class {some(new)} ({images} in {split})")
        absent = [name for name in used if not others.get(name)]
        if split == "test" and absent:
            warnings.append(f"no test image is of class {some(absent)}")
    if len(used) == 1:
        warnings.append(f"all {train[used[0]]} training images are of class {used[0]!r}")
    elif len(used) > MAX_LISTED and max(train.values()) == 1:
        warnings.append(f"each of the {len(used)} classes has a single training image")
    return warnings


def describe(indices: Mapping[str, Array], names: Sequence[str], note: str) -> str:
    total: Counter[int] = Counter()
    for values in indices.values():
        total.update(values.tolist())
    counts = [f"{name} ({total[i]})" for i, name in enumerate(names)]
    listed = ", ".join(counts[:MAX_LISTED])
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"labels are {note}; the {counted(len(names), 'class')} {are(len(names))} {listed}{more}"


def some(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed


def match_names(
    y: Tensor, classes: Sequence[str], wanted: Sequence[str], where: str, owner: str
) -> Tensor:
    """Return the labels `y`, which index `classes`, as indices of `wanted`, by name. Raises
    UsageError if examples have a class that is not in `wanted`, the classes of `owner`."""
    place = {name: i for i, name in enumerate(wanted)}
    used = {classes[i] for i in {*y.tolist()}}
    if unknown := sorted(used - set(wanted), key=natural_key):
        raise UsageError(
            f"{where} has examples of {some(unknown)}, but the classes of {owner} are "
            f"{some(wanted)}",
            hint="name the classes of the data as in the run, or remove these examples",
        )
    order = torch.tensor([place.get(name, -1) for name in classes], dtype=torch.int64)
    return order.to(y.device)[y]
