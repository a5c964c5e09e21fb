"""Factors: from what a dataset returns to values that all splits share.

A factor is a known property of each example, numeric or categorical. labels.py reads the labels,
which are the factor "class".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from latentforge.contracts import DataSpec, Factor
from latentforge.contracts.data import CLASS
from latentforge.data.images import ImageSplit
from latentforge.data.labels import MAX_CLASSES, as_text, is_missing, match_names, some
from latentforge.errors import UsageError
from latentforge.io.text import are, counted, escape_unprintable, natural_key

Array = np.ndarray[Any, Any]
Table = dict[str, Tensor]

LARGEST = float(np.finfo(np.float32).max)

log = logging.getLogger("latentforge")


@dataclass(frozen=True)
class Column:
    """One factor of one split. `values`, (N,): float64 if numeric; if categorical, strings or int64
    that index `names`. `where` names the factor in errors."""

    values: Array
    names: tuple[str, ...]
    where: str

    @property
    def kind(self) -> str:
        return "categorical" if self.names or self.values.dtype.kind == "U" else "numeric"


# ---------------------------------------------------------------- one split


def read_factors(factors: Any, count: int, where: str) -> dict[str, Column]:
    """Read the factors of a split of `count` examples: see `Arrays.factors`. Raises UsageError for
    values that are missing, not finite, of another number, or not among the names."""
    if not hasattr(factors, "items"):
        raise UsageError(
            f"{where}: factors is a {type(factors).__name__}, but it must map names to values",
            hint="factors={'angle': angles, 'shape': (numbers, ['square', 'disc'])}",
        )
    columns: dict[str, Column] = {}
    for key, given in factors.items():
        name = escape_unprintable(str(key)).strip()
        if not name or name == CLASS or name in columns:
            problem = {"": "a factor has no name", CLASS: "a factor is named 'class'"}
            problem_text = problem.get(name, f"two factors are named {name!r}")
            hint = "give these values as y, with classes" if name == CLASS else "rename it"
            raise UsageError(f"{where}: {problem_text}", hint=hint)
        columns[name] = read_column(given, count, f"{where}, factor {name!r}")
    return columns


def read_column(given: Any, count: int, where: str) -> Column:
    """Read one factor: values, or a pair of values and names."""
    values, names = given if is_pair(given) else (given, None)
    names = () if names is None else tuple(escape_unprintable(as_text(name)) for name in names)
    if len({*names}) < len(names):
        raise UsageError(f"{where}: two of its names are the same: {some(names)}")
    array = as_column(values, where)
    if len(array) != count:
        raise UsageError(
            f"{where} has {counted(len(array), 'value')}, but x has {counted(count, 'example')}",
            hint="give one value for each example, in the order of x",
        )
    if array.dtype.kind in "US":
        texts = [escape_unprintable(as_text(value)) for value in array.tolist()]
        if names and (unknown := sorted({*texts} - {*names}, key=natural_key)):
            raise UsageError(f"{where}: {some(unknown)} is not one of its names: {some(names)}")
        check_number(len({*texts}), where)
        return Column(np.array(texts), names, where)
    if array.dtype.kind == "b":
        return Column(array.astype(np.int64), names or ("False", "True"), where)
    if faulty := int((~np.isfinite(array)).sum()):
        raise UsageError(
            f"{where}: {faulty} of {counted(count, 'value')} {are(faulty)} NaN or infinite",
            hint="remove these examples, or leave out the factor",
        )
    if not names:
        if array.dtype.kind in "iu" and (array.astype(np.float32) != array).any():
            log.warning("%s: large integers are rounded to float32", where)
        largest = float(np.abs(array.astype(np.float64)).max(initial=0.0))
        if largest > LARGEST:
            raise UsageError(
                f"{where}: it has values up to {largest:.3g}, which float32 cannot represent",
                hint="use another unit, or a logarithm of the values",
            )
        return Column(array.astype(np.float64), (), where)
    low, high = float(array.min()), float(array.max())
    if (array != np.round(array)).any() or low < 0 or high >= len(names):
        raise UsageError(
            f"{where}: its values go from {low:g} to {high:g}, but they must be integers from 0 to "
            f"{len(names) - 1} that index its {counted(len(names), 'name')}",
            hint="give a numeric factor without names",
        )
    check_number(len(names), where)
    return Column(array.astype(np.int64), names, where)


def is_pair(given: Any) -> bool:
    """Whether a factor is given as a pair of values and names, and not as two values."""
    if not isinstance(given, tuple) or len(given) != 2 or not np.ndim(given[0]):
        return False
    return given[1] is None or isinstance(given[1], list | tuple | np.ndarray)


def as_column(values: Any, where: str) -> Array:
    """Convert the values of a factor to an array (N,) of numbers, bools or strings."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = as_array(values, where)
    if array.dtype == object:
        if any(is_missing(value) for value in array.ravel().tolist()):
            raise UsageError(
                f"{where}: some values are missing",
                hint="remove these examples, or leave out the factor",
            )
        values = array.tolist()
        array = as_array(values, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    is_text = array.dtype.kind in "US" and not isinstance(values, str)
    if array.ndim != 1 or not (is_text or array.dtype.kind in "biuf"):
        raise UsageError(
            f"{where} has type {array.dtype} and shape {array.shape}",
            hint="give one number or string for each example",
        )
    mixed = is_text and isinstance(values, list | tuple) and not all_texts(values)
    if mixed:  # NumPy converts a number among strings to a string
        raise UsageError(f"{where}: its values are numbers and strings", hint="give one type")
    return array


def as_array(values: Any, where: str) -> Array:
    try:
        return np.asarray(values)
    except ValueError:
        raise UsageError(f"{where}: its values have different shapes") from None


def all_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str | bytes) for value in values)


def check_number(names: int, where: str) -> None:
    if names > MAX_CLASSES:
        raise UsageError(
            f"{where} has {names} different names, but at most {MAX_CLASSES} are supported",
            hint="give numbers for a numeric factor",
        )


def dataset_factors(dataset: Any, where: str) -> Mapping[str, Any] | None:
    """The attribute `factors` of a map-style dataset, which maps names to one value for each item,
    also through torch's Subset and ConcatDataset. None if it has none."""
    if isinstance(dataset, Subset):
        factors = dataset_factors(dataset.dataset, where)
        rows = np.asarray(dataset.indices, np.int64)
        return factors and {name: rows_of(given, rows) for name, given in factors.items()}
    if isinstance(dataset, ConcatDataset):
        parts = [dataset_factors(part, where) for part in dataset.datasets]
        names = {tuple(part or ()) for part in parts}
        if len(names) > 1:
            listed = " and ".join(", ".join(part) or "none" for part in names)
            raise UsageError(f"{where}: the datasets of the ConcatDataset have factors {listed}")
        first = parts[0] or {}
        return {name: join([part[name] for part in parts if part], where) for name in first} or None
    factors = getattr(dataset, "factors", None)
    if factors is not None and not isinstance(factors, Mapping):
        log.warning("%s: its attribute factors is no mapping and is not used", where)
        return None
    return factors


def rows_of(given: Any, rows: Array) -> Any:
    values, names = given if is_pair(given) else (given, None)
    return as_column(values, "factor")[rows], names


def join(parts: Sequence[Any], where: str) -> Any:
    """Join the values of a factor in several datasets, whose names must be the same."""
    pairs = [given if is_pair(given) else (given, None) for given in parts]
    names = {None if names is None else tuple(names) for _, names in pairs}
    if len(names) > 1:
        raise UsageError(f"{where}: a factor has different names in parts of the ConcatDataset")
    values = [as_column(values, where) for values, _ in pairs]
    return np.concatenate(values), pairs[0][1]


# ---------------------------------------------------------------- all splits together


def unite_factors(
    splits: Mapping[str, Mapping[str, Column]],
) -> tuple[dict[str, Table], tuple[Factor, ...]]:
    """Return the factors of each split as tensors, and their description. Raises UsageError unless
    all splits have the same factors. Names are matched by name."""
    first_split, first = next(iter(splits.items()))
    for split, columns in splits.items():
        for name in {**first, **columns}:
            if (name in first) != (name in columns):
                here, there = (first_split, split) if name in first else (split, first_split)
                raise UsageError(
                    f"the {here} split has the factor {name!r}, the {there} split does not",
                    hint="give the same factors for every split",
                )
            if columns[name].kind != first[name].kind:
                raise UsageError(
                    f"{columns[name].where} is {columns[name].kind}, but {first[name].where} is "
                    f"{first[name].kind}",
                    hint="give its names for every split, or for none",
                )
    tables: dict[str, Table] = {split: {} for split in splits}
    factors = []
    for name in first:
        columns = {split: found[name] for split, found in splits.items()}
        names = unite_names([*columns.values()])
        check_number(len(names), first[name].where)
        factors.append(Factor(name, names))
        for split, column in columns.items():
            tables[split][name] = as_tensor(column, names)
    return tables, tuple(factors)


def unite_names(columns: Sequence[Column]) -> tuple[str, ...]:
    """The names of a categorical factor in all splits: the given ones in their order, or else the
    values in natural order. Empty for a numeric factor."""
    if columns[0].kind == "numeric":
        return ()
    given = dict.fromkeys(name for column in columns for name in column.names)
    texts = {text for c in columns if c.values.dtype.kind == "U" for text in c.values.tolist()}
    return (*given, *sorted(texts - given.keys(), key=natural_key))


def as_tensor(column: Column, names: Sequence[str]) -> Tensor:
    """The values of a factor, float32 (N,), or int64 (N,) that index `names`."""
    if column.kind == "numeric":
        return torch.from_numpy(column.values.astype(np.float32))
    place = {name: i for i, name in enumerate(names)}
    if column.values.dtype.kind == "U":
        return torch.tensor([place[value] for value in column.values.tolist()], dtype=torch.int64)
    order = np.array([place[name] for name in column.names], np.int64)
    return torch.from_numpy(order[column.values])


def other_factors(spec: DataSpec) -> tuple[Factor, ...]:
    """The factors other than the class."""
    return tuple(factor for factor in spec.factors if factor.name != CLASS)


def match_factors(
    images: ImageSplit, factors: Sequence[Factor], where: str, owner: str
) -> ImageSplit:
    """Return the images with categorical factors that index the names of the same factors of
    `owner`, by name. Factors that only one of them has are not changed. Raises UsageError for a
    value that has another name."""
    wanted = {factor.name: factor.names for factor in factors}
    table, changed = dict(images.table), []
    for factor in other_factors(images.spec):
        names = wanted.get(factor.name, factor.names)
        if bool(names) != bool(factor.names):
            here, there = ("categorical" if n else "numeric" for n in (factor.names, names))
            raise UsageError(
                f"factor {factor.name!r} of {where} is {here}, but that of {owner} is {there}",
                hint="give the factor as in the run, or leave it out",
            )
        if names != factor.names:
            about = f"factor {factor.name!r} of {where}"
            values = table[factor.name]
            table[factor.name] = match_names(values, factor.names, names, about, owner)
        changed.append(Factor(factor.name, names))
    return images.with_table(table, replace(images.spec, factors=tuple(changed)))
