"""Loads the images of a run from a dataset plugin or from data passed in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from latentforge.config.data_range import list_range_options
from latentforge.config.request import Draft
from latentforge.config.resolve import raise_faults, read_assignments, resolve_data, resolve_dataset
from latentforge.config.schema import DATASET, IN_MEMORY, Component, DataConfig, OtherData
from latentforge.config.validation import Faults
from latentforge.contracts import Scaling
from latentforge.data.arrays import suggested_ranges, suggestions_for
from latentforge.data.attributes import LABELS
from latentforge.data.preparation import SPLITS, prepare, prepare_whole
from latentforge.data.python_objects import as_source
from latentforge.data.scaling import standardize
from latentforge.data.splits import DataSplits
from latentforge.errors import MissingError, UsageError
from latentforge.plugins.registry import Registry

OTHER_NAMES = {
    **dict.fromkeys(("training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation", "te"), "test"),
}


def load_splits(
    dataset: Component | None,
    config: DataConfig,
    data: Any = None,
    scaling: Scaling | None = None,
    ranges: Mapping[str, str] = MappingProxyType({}),
) -> DataSplits:
    """Load the images of every split on the CPU. `data` replaces `dataset`. `scaling` is that of a
    run, for data.normalize. An error about the values may suggest the `ranges`, each with further
    options. Raises MissingError if `dataset` and `data` are None."""
    if data is not None:
        name, given = IN_MEMORY, as_splits(data)
        with suggestions_for(data, config), suggested_ranges(ranges):
            splits = prepare(given.__getitem__, tuple(given), name, config)
    elif dataset is not None:
        name, official = dataset.name, list_splits(dataset)
        with suggested_ranges(ranges):
            splits = prepare(partial(load_split, dataset), official, name, config)
    else:
        raise MissingError(
            "this run was trained on data passed in Python, which is not stored in the run",
            hint="pass it again as the argument data=... of the Python API",
        )
    return standardize(splits, name, scaling) if config.normalize else splits


def load_split(dataset: Component, split: str) -> Any:
    """Return what the dataset returns for one of its official splits."""
    about = f"loading dataset {dataset.name!r}"
    roles = role_arguments(dataset)
    return dataset.call(about, dataset.entry.spec.load, dataset.options, split, *roles)


def list_splits(dataset: Component) -> tuple[str, ...]:
    """Return the names of the official splits of a dataset."""
    splits = dataset.entry.spec.splits
    if not callable(splits):
        return tuple(splits)
    about = f"listing the splits of dataset {dataset.name!r}"
    return tuple(dataset.call(about, splits, dataset.options, *role_arguments(dataset)))


def role_arguments(dataset: Component) -> tuple[Mapping[str, Any], ...]:
    """Return the last argument of a dataset that uses other runs. Raises UsageError if they are
    unknown: only a training, and the run that results from it, can name them."""
    if not dataset.entry.spec.roles:
        return ()
    if not dataset.roles:
        roles = " ".join(f"--with {role}=RUN" for role in dataset.entry.spec.roles)
        raise UsageError(
            f"dataset {dataset.name!r} needs a run for role {', '.join(dataset.entry.spec.roles)}",
            hint=f"only a training can name it, with {roles}",
        )
    return (dataset.roles,)


def load_whole(other: OtherData, scaling: Scaling | None = None) -> tuple[DataSplits, bool]:
    """Load data that replaces a run's own data, whose scaling is `scaling`, without splitting
    anything off. Also returns whether it has other splits than "train"."""
    if other.dataset:
        name = other.dataset.name
        loaded = {split: load_split(other.dataset, split) for split in list_splits(other.dataset)}
    else:
        loaded, name = as_splits(other.data), IN_MEMORY
    with suggestions_for(other.data, other.config):
        splits = prepare_whole(loaded, name, other.config)
    if other.config.normalize:
        splits = standardize(splits, name, scaling)
    return splits, list(loaded) != ["train"]


def load_data(
    registry: Registry, data: Any, options: Sequence[str] | Mapping[str, Any] = ()
) -> DataSplits:
    """Load the splits of a dataset, given by its name or as a mapping like the section [data], or
    of data passed in Python. `options` are options of the section [data]."""
    if isinstance(data, str):
        named, config = resolve_dataset(registry, data, options)
        return load_splits(named, config, ranges=list_range_options(config))
    draft, faults = Draft(), Faults()
    splits = draft.add_data(data)
    usual = {"name": DATASET} if splits is None else {}
    values = {**usual, **draft.values.get("data", {}), **read_assignments(options, faults)}
    dataset, config = resolve_data(values, registry, faults)
    raise_faults(faults)
    return load_splits(dataset, config, splits, ranges=list_range_options(config))


def as_splits(data: Any) -> dict[str, Any]:
    """Return in-memory data by split. Data that is not a mapping is the split "train"."""
    splits = dict(data) if isinstance(data, Mapping) else {"train": data}
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise UsageError(
            f"data: no such split {unknown[0]!r}; give 'train' and, if any, 'validation' and "
            "'test'",
            hint=suggest_splits(data),
        )
    return {split: as_source(value) for split, value in splits.items()}


def suggest_splits(data: Mapping[str, Any]) -> str:
    """Return the data to write for a mapping whose keys are not splits: those of a dataset of
    scikit-learn, for example, are `images` and `target`."""
    renamed = {key: OTHER_NAMES.get(str(key).lower(), key) for key in data}
    if set(renamed.values()) <= set(SPLITS) and len({*renamed.values()}) == len(data):
        pairs = ", ".join(f"{split!r}: data[{key!r}]" for key, split in renamed.items())
        return f"data={{{pairs}}}"
    shapes = {key: np.shape(value) for key, value in data.items() if hasattr(value, "shape")}
    images = [key for key, shape in shapes.items() if len(shape) > 1]
    image = max(images, key=lambda key: len(shapes[key]), default=None)
    if image is None:
        return "data={'train': x, 'test': x_test}"
    labels = [key for key, shape in shapes.items() if shape == shapes[image][:1]]
    usual = [key for key in labels if str(key).lower() in (*LABELS, "y")]
    if len(labels := usual or labels) == 1:
        return f"data=(data[{image!r}], data[{labels[0]!r}])"
    return f"data=data[{image!r}]" if len(images) == 1 else "data={'train': x, 'test': x_test}"
