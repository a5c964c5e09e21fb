"""What a map-style dataset says about its items in torchvision's convention: the attributes
`classes`, `targets` and `files`, also through torch's Subset and ConcatDataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from latentforge.errors import UsageError

LABELS = ("label", "labels", "target", "targets", "class")  # usual names of labels


def class_names(dataset: Any, where: str) -> tuple[str, ...]:
    """The names that the labels of a dataset index; empty if it has none. Raises UsageError if the
    parts of a ConcatDataset have different names, as the same label then means two classes."""
    if isinstance(dataset, Subset):
        return class_names(dataset.dataset, where)
    if isinstance(dataset, ConcatDataset):
        parts = {class_names(part, where): None for part in dataset.datasets}
        if len(parts) > 1:
            listed = " and ".join(str(list(names)) if names else "none" for names in parts)
            raise UsageError(
                f"{where}: the datasets of the ConcatDataset have different classes: {listed}",
                hint="data=[(x, part.classes[y]) for part in dataset.datasets for x, y in part]"
                if all(hasattr(part, "classes") for part in dataset.datasets)
                else "give them labels that are the names of the classes",
            )
        return next(iter(parts))
    classes = getattr(dataset, "classes", ())
    return tuple(map(str, classes)) if isinstance(classes, list | tuple) else ()


def item_values(dataset: Any, name: str) -> Sequence[Any] | None:
    """The attribute `name` of a dataset, which has one value for each item. None if the dataset has
    no such attribute, or one of another length."""
    if isinstance(dataset, Subset):
        values = item_values(dataset.dataset, name)
        return None if values is None else [values[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [item_values(part, name) for part in dataset.datasets]
        if any(part is None for part in parts):
            return None
        return [value for part in parts for value in part or ()]
    values = getattr(dataset, name, None)
    if values is None and name == "files" and hasattr(dataset, "samples"):
        values = [sample[0] for sample in dataset.samples]  # of torchvision's ImageFolder
    try:
        return values if values is not None and len(values) == len(dataset) else None
    except TypeError:
        return None
