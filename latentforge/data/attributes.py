"""Reads the attributes `classes`, `targets` and `files` of map-style datasets, which are those of
torchvision, also through torch's Subset and ConcatDataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from latentforge.data.labels import as_text
from latentforge.errors import UsageError

log = logging.getLogger("latentforge")

NAMES = ("classes", "class_names", "class_to_idx")  # usual attributes with the names of classes
LABELS = ("label", "labels", "target", "targets", "class")  # usual names of labels


def class_names(dataset: Any, where: str) -> tuple[str, ...]:
    """The names that the labels of a dataset index; empty if it has none. Raises UsageError if the
    parts of a ConcatDataset have different names, as the same label then means two classes."""
    if dataset is None:
        return ()
    if isinstance(dataset, Subset):
        return class_names(dataset.dataset, where)
    if isinstance(dataset, ConcatDataset):
        parts = {class_names(part, where): None for part in dataset.datasets}
        if len(parts) > 1:
            listed = " and ".join(str(list(names)) if names else "none" for names in parts)
            raise UsageError(
                f"{where}: the datasets of the ConcatDataset have different classes: {listed}",
                hint="data=[(x, part.classes[y]) for part in dataset.datasets "
                "for x, y in map(part.__getitem__, range(len(part)))]"
                if all(hasattr(part, "classes") for part in dataset.datasets)
                else "give them labels that are the names of the classes",
            )
        return next(iter(parts))
    name = next((name for name in NAMES if getattr(dataset, name, None) is not None), "")
    if name:
        names = read_names(getattr(dataset, name), where)
        numbers = getattr(dataset, "class_to_idx", None)
        others = names if numbers is None else read_names(numbers, where)
        if len(others) == len(names) and others != names:
            raise UsageError(
                f"{where}: the classes of the dataset are {list(names)}, but its class_to_idx "
                f"numbers {list(others)}",
                hint="make them agree, or give labels that are the names of the classes",
            )
        return names
    if inside := class_names(getattr(dataset, "dataset", None), where):
        message = "%s: the classes of the dataset in it are not used: %s; if they are those of its "
        log.warning(message + "labels, set its attribute `classes`", where, list(inside))
    return ()


def read_names(classes: Any, where: str) -> tuple[str, ...]:
    """Return the names of classes given as a list, an array or an index of pandas, or as a mapping
    between numbers and names. Others are announced and not used."""
    names = classes
    if isinstance(classes, Mapping):
        pairs = [(k, v) if isinstance(k, int) else (v, k) for k, v in classes.items()]
        by_number = dict(pairs)
        names = [by_number.get(i) for i in range(len(pairs))]
    is_iterable = hasattr(names, "__iter__") and not isinstance(names, str | bytes | type)
    names = [*names] if is_iterable else [None]
    if all(isinstance(name, str | bytes | int | np.integer) for name in names):
        return tuple(as_text(name) for name in names)
    log.warning("%s: its classes are no list of names and are not used: %.60r", where, classes)
    return ()


def is_listing(samples: Any) -> bool:
    return isinstance(samples, list) and all(
        isinstance(sample, tuple) and sample and isinstance(sample[0], str | PurePath)
        for sample in samples
    )


def item_values(dataset: Any, name: str) -> Sequence[Any] | None:
    """The attribute `name` of a dataset, which has one value for each item. None if the dataset has
    no such attribute, or one of another length."""
    if isinstance(dataset, Subset):
        values = item_values(dataset.dataset, name)
        if isinstance(values, Tensor | np.ndarray):  # one index at a time is slow
            return values[[*dataset.indices]]
        return None if values is None else [values[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        joined: list[Any] = []
        for part in dataset.datasets:
            if (values := item_values(part, name)) is None:
                return None
            joined.extend(values)
        return joined
    values = getattr(dataset, name, None)
    samples = getattr(dataset, "samples", None)  # of torchvision's ImageFolder: (path, label)
    if values is None and name == "files" and samples is not None and is_listing(samples):
        values = [sample[0] for sample in samples]
    try:
        return values if values is not None and len(values) == len(dataset) else None
    except TypeError:
        return None
