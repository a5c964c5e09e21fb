"""Data passed in Python: objects of other libraries as arrays or map-style datasets.

Libraries are not imported here: an object of pandas, scipy or datasets shows by its attributes what
it is. What cannot be converted without a doubt is refused with the conversion to write.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from latentforge.contracts import Arrays
from latentforge.data.attributes import LABELS, read_names
from latentforge.data.labels import MAX_LISTED
from latentforge.data.pictures import is_image
from latentforge.errors import UsageError
from latentforge.io.text import are, counted

log = logging.getLogger("latentforge")


def as_source(value: Any) -> Any:
    """Return Arrays or a map-style dataset for one split of data that was passed in Python."""
    if isinstance(value, Arrays):
        check_columns(value.x, "y" if value.y is not None else "")
        classes = read_names(value.classes, "data") or column_names(value.y)
        factors = dense_factors(value.factors)
        return replace(value, x=dense(value.x), y=dense(value.y), classes=classes, factors=factors)
    if isinstance(value, tuple) and len(value) == 2:
        x, y = value
        check_columns(x, "y")
        check_order(x, y)
        return Arrays(dense(x), dense(y), column_names(y))
    if isinstance(value, tuple):
        raise UsageError(
            f"data: a tuple of {counted(len(value), 'part')} is not data; a pair is (x, y)",
            hint="data=list(data), if each part is an image",
        )
    if isinstance(value, DataLoader):
        value = read_loader(value)
    if isinstance(value, PurePath):
        kind = "arrays" if value.suffix in (".npz", ".npy") else "folder"
        option = "path" if kind == "arrays" else "root"
        raise UsageError(
            f"data: {value} is a path, not data",
            hint=f"data={{'name': {kind!r}, {option!r}: {str(value)!r}}}",
        )
    if is_hugging_face(value):
        return Columns(value)
    if isinstance(value, torch.Tensor | np.ndarray) or is_table(value) or is_sparse(value):
        check_columns(value)
        return Arrays(dense(value))
    if isinstance(value, IterableDataset):
        raise UsageError(
            f"data: {type(value).__name__} can only be iterated; a dataset needs "
            "__getitem__ and __len__",
            hint="data=list(dataset), if it fits into memory; random items are then drawn once",
        )
    if hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, str):
        return value
    raise UsageError(
        f"data: cannot train on a {type(value).__name__}",
        hint="a dataset's name, an array or tensor, a pair (x, y), or a map-style dataset",
    )


def dense(value: Any) -> Any:
    """Return an array, a tensor or labels whose values are all given. Raises UsageError for masked
    and sparse arrays, and for tables with columns that are not numbers."""
    if isinstance(value, np.ma.MaskedArray):
        if masked := int(np.ma.getmaskarray(value).sum()):
            raise UsageError(
                f"data: {masked} of {counted(value.size, 'value')} {are(masked)} masked",
                hint="x.filled(0) gives them a value",
            )
        return value.data
    if is_sparse(value):
        write = "x.to_dense()" if isinstance(value, torch.Tensor) else "x.toarray()"
        raise UsageError(f"data: a sparse {type(value).__name__} has no pixels", hint=write)
    if is_table(value) and value.ndim == 2 and value.shape[1] == 1:
        value = value.iloc[:, 0]  # of a column
    if is_table(value) and value.ndim == 2:
        texts = [name for name, kind in value.dtypes.items() if kind.kind not in "biuf"]
        if texts:
            raise UsageError(
                f"data: columns of the DataFrame are not numbers: {', '.join(map(str, texts))}",
                hint=suggest_columns(value, texts),
            )
        return value.to_numpy()
    return value.to_numpy() if is_table(value) else value


def dense_factors(factors: Any) -> Any:
    """Return factors whose values are arrays. They may be the columns of a DataFrame."""
    if not hasattr(factors, "items"):
        return factors  # None, or refused later
    columns: dict[Any, Any] = {}
    for name, given in factors.items():
        if name in columns:  # a DataFrame may have two columns of one name
            raise UsageError(
                f"data: two factors are named {str(name)!r}", hint="rename one of them"
            )
        columns[name] = given if isinstance(given, tuple) else dense(given)
    return columns


def suggest_columns(table: Any, texts: Sequence[Any]) -> str:
    """Return the data to write for a DataFrame whose columns `texts` are not numbers."""
    images = [name for name in texts if len(table) and is_image(table[name].iloc[0])]
    if len(images) == 1:
        labels = [name for name in table.columns if name != images[0]]
        x = f"list(x[{images[0]!r}])"
        return f"data=({x}, list(x[{labels[0]!r}]))" if len(labels) == 1 else f"data={x}"
    if all(isinstance(value, float | int | None) for name in texts for value in table[name]):
        return "data=x.astype(float).fillna(0), or data=x.dropna().astype(float)"
    columns = f"[{', '.join(map(repr, texts))}]"
    if len(texts) == 1:
        return f"data=(x.drop(columns={columns}), x[{texts[0]!r}])"
    return f"data=x.drop(columns={columns})"


def check_order(x: Any, y: Any) -> None:
    """Raise UsageError for a table and labels of pandas with the same index in other orders."""
    if not (is_table(x) and is_table(y)) or x.index.equals(y.index) or len(x) != len(y):
        return
    if (
        x.index.is_unique
        and y.index.is_unique
        and x.index.sort_values().equals(y.index.sort_values())
    ):
        raise UsageError(
            "data: x and y have the same index in different orders",
            hint="data=(x, y.loc[x.index]), or data=(x.to_numpy(), y.to_numpy()) if their order "
            "is the same",
        )


def column_names(y: Any) -> tuple[str, ...]:
    """Return the names of one-hot columns, which are those of the classes."""
    is_wide = is_table(y) and y.ndim == 2 and y.shape[1] > 1
    return tuple(map(str, y.columns)) if is_wide else ()


def check_columns(x: Any, y: str = "") -> None:
    """Raise UsageError for a DataFrame of values with a column that seems to contain labels. `y` is
    the name of the labels that are given beside it."""
    if not (is_table(x) and x.ndim == 2):
        return
    names = {str(name).lower() for name in x.columns}
    usual = LABELS if "x" in names else (*LABELS, "y")
    found = [name for name in x.columns if str(name).lower() in usual]
    if found and len(x.columns) > 1:
        labels = y or f"x[{found[0]!r}]"
        values = "(x.to_numpy(), y)" if y else "x.to_numpy()"
        raise UsageError(
            f"data: column {found[0]!r} of the DataFrame seems to contain labels, not values",
            hint=f"data=(x.drop(columns={found!r}), {labels}), or data={values} if it is a value",
        )
    integers = [name for name, kind in x.dtypes.items() if kind.kind in "iub"]
    if len(integers) == 1 and len(x.columns) > 2 and x[integers[0]].nunique() <= MAX_LISTED:
        log.warning(
            "data: column %r of the DataFrame has only %d different integers and is used as a "
            "value; if it contains labels: data=(x.drop(columns=[%r]), x[%r])",
            *(integers[0], x[integers[0]].nunique(), integers[0], integers[0]),
        )


def read_loader(loader: DataLoader[Any]) -> Any:
    """Return the dataset of a DataLoader with the items that its sampler draws from, and announce
    what is not used. Raises UsageError for a sampler whose items are not known."""
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        return dataset  # refused like any other
    log.warning(
        "data: the dataset of the DataLoader is used; its batches, order and workers are not"
    )
    if loader.collate_fn not in (default_collate, default_convert):
        log.warning("data: the collate_fn of the DataLoader is not called")
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    match sampler:
        case SequentialSampler() | RandomSampler() if len(sampler) == len(dataset):  # type: ignore[arg-type]
            return dataset
        case SubsetRandomSampler(indices=indices):
            message = "data: its sampler draws from %s, which %s used in ascending order"
            log.warning(message, counted(len(indices), "item"), are(len(indices)))
            return Subset(dataset, sorted(map(int, indices)))
    raise UsageError(
        f"data: the items of the DataLoader's {type(sampler).__name__} are not known",
        hint="data=loader.dataset for all items, or data=torch.utils.data.Subset(dataset, indices)",
    )


def is_sparse(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.layout != torch.strided
    scipy = sys.modules.get("scipy.sparse")
    return scipy is not None and bool(scipy.issparse(value))


def is_table(value: Any) -> bool:
    """Whether a value is a DataFrame or a Series of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series)


def is_hugging_face(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("column_names", "features", "__getitem__"))


class Columns:
    """A `datasets.Dataset` of Hugging Face with one column of images and at most one of labels."""

    def __init__(self, dataset: Any) -> None:
        kinds = {name: type(kind).__name__ for name, kind in dataset.features.items()}
        arrays = ("Image", "Array2D", "Array3D")
        self.image = choose(kinds, arrays, ("image", "img", "pixels", "x"), "images")
        others = {name: kind for name, kind in kinds.items() if name != self.image}
        self.label = ""
        if others:
            self.label = choose(others, ("ClassLabel",), ("label", "labels", "y"), "labels")
        self.dataset = dataset
        feature = dataset.features.get(self.label)
        self.classes: Sequence[str] = tuple(getattr(feature, "names", None) or ())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        image = item[self.image]
        image = np.asarray(image) if isinstance(image, list) else image
        return (image, item[self.label]) if self.label else image


def choose(kinds: dict[str, str], types: Sequence[str], names: Sequence[str], what: str) -> str:
    """Return the column of one of the types, or else the one that has one of the names."""
    found = [name for name, kind in kinds.items() if kind in types]
    found = found if len(found) == 1 else [name for name in found or kinds if name in names]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    raise UsageError(
        f"data: it is not clear which column of the dataset contains the {what}: {columns}",
        hint="data=[(item['image'], item['label']) for item in dataset]",
    )
