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
from torch.utils.data import DataLoader, IterableDataset

from latentforge.contracts import Arrays
from latentforge.errors import UsageError

log = logging.getLogger("latentforge")


def as_source(value: Any) -> Any:
    """Return Arrays or a map-style dataset for one split of data that was passed in Python."""
    if isinstance(value, Arrays):
        return replace(value, x=dense(value.x), y=dense(value.y))
    if isinstance(value, tuple) and len(value) == 2:
        return Arrays(dense(value[0]), dense(value[1]))
    if isinstance(value, DataLoader):
        log.warning(
            "data: the dataset of the DataLoader is used; its batches, order and workers are not"
        )
        value = value.dataset
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
        return Arrays(dense(value))
    if isinstance(value, IterableDataset):
        raise UsageError(
            f"data: {type(value).__name__} can only be iterated; a dataset needs "
            "__getitem__ and __len__",
            hint="data=list(dataset), if it fits into memory",
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
        if count := int(np.ma.getmaskarray(value).sum()):
            raise UsageError(
                f"data: {count} of {value.size} values are masked",
                hint="x.filled(0) gives them a value",
            )
        return value.data
    if is_sparse(value):
        write = "x.to_dense()" if isinstance(value, torch.Tensor) else "x.toarray()"
        raise UsageError(f"data: a sparse {type(value).__name__} has no pixels", hint=write)
    if is_table(value) and value.ndim == 2:
        texts = [name for name, kind in value.dtypes.items() if kind.kind not in "biuf"]
        if texts:
            columns = f"[{', '.join(map(repr, texts))}]"
            given = f"(x.drop(columns={columns}), x[{texts[0]!r}])" if len(texts) == 1 else ""
            raise UsageError(
                f"data: columns of the DataFrame are not numbers: {', '.join(map(str, texts))}",
                hint=f"data={given}" if given else f"data=x.drop(columns={columns})",
            )
        return value.to_numpy()
    return value.to_numpy() if is_table(value) else value


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
