"""Loads the images of a run from a dataset plugin or from data passed in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from latentforge.config.resolve import resolve_dataset
from latentforge.config.schema import IN_MEMORY, Component, DataConfig
from latentforge.contracts import Arrays
from latentforge.data.preparation import SPLITS, prepare
from latentforge.data.splits import DataSplits
from latentforge.errors import MissingError, UsageError
from latentforge.plugins.registry import Registry


def load_splits(dataset: Component | None, config: DataConfig, data: Any = None) -> DataSplits:
    """Load the images of every split on the CPU. `data` replaces `dataset`. Raises MissingError
    if both are None."""
    load: Callable[[str], Any]
    if data is not None:
        splits = as_splits(data)
        load, official, name = splits.__getitem__, tuple(splits), IN_MEMORY
    elif dataset is not None:
        spec, name = dataset.entry.spec, dataset.name
        load = partial(dataset.call, f"loading dataset {name!r}", spec.load, dataset.options)
        official = spec.splits
    else:
        raise MissingError(
            "this run was trained on data passed in Python, which is not stored in the run",
            hint="pass it again: run.evaluate(data=...)",
        )
    return prepare(load, official, name, config)


def load_dataset(
    registry: Registry, name: str, options: Sequence[str] | Mapping[str, Any] = ()
) -> DataSplits:
    """Load the splits of the dataset `name`. `options` are options of the section [data]."""
    dataset, config = resolve_dataset(registry, name, options)
    return load_splits(dataset, config)


def as_splits(data: Any) -> dict[str, Any]:
    """Return in-memory data by split. Data that is not a mapping is the split "train"."""
    splits = dict(data) if isinstance(data, Mapping) else {"train": data}
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise UsageError(
            f"data: no such split {unknown[0]!r}; give 'train' and, if any, 'validation' and 'test'"
        )
    return {split: _as_source(value) for split, value in splits.items()}


def _as_source(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return Arrays(value)
    if isinstance(value, tuple) and len(value) == 2:
        return Arrays(value[0], value[1])
    if isinstance(value, Arrays) or (hasattr(value, "__getitem__") and hasattr(value, "__len__")):
        return value
    raise UsageError(
        f"data: cannot train on a {type(value).__name__}",
        hint="a dataset's name, an array or tensor, a pair (x, y), or a map-style dataset",
    )
