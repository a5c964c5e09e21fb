"""Prepares what a dataset returns: layout, levels, labels, splits, fingerprint.

Contains no dataset, and must not import Ignite.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentforge.config.data_range import to_json
from latentforge.config.schema import IN_MEMORY, DataConfig
from latentforge.contracts import Arrays, DataSpec, Factor
from latentforge.data import readers
from latentforge.data.arrays import as_tensor, data_option, dtype_name
from latentforge.data.attributes import class_names, item_values
from latentforge.data.factors import (
    Column,
    Table,
    dataset_factors,
    read_factors,
    unite_factors,
)
from latentforge.data.fingerprint import (
    SAMPLE,
    SAMPLE_BATCH,
    fingerprint_all,
    fingerprint_sample,
)
from latentforge.data.images import ImageSplit
from latentforge.data.labels import Labels, check_counts, read_labels, unite
from latentforge.data.layout import (
    choose_kind,
    find_layout,
    kind_of,
    to_standard,
    warn_if_unusual,
)
from latentforge.data.levels import Levels
from latentforge.data.memory import streaming_reason
from latentforge.data.ranges import choose_range, find_scale, find_spec
from latentforge.data.split_off import split_off
from latentforge.data.splits import DataSplits
from latentforge.data.streamed import StreamedImages
from latentforge.errors import UsageError
from latentforge.io.paths import as_text
from latentforge.runtime.memory import host_memory
from latentforge.seeding import mix, seeded_draws

SPLITS = ("train", "validation", "test")
TEST = 0.2  # fraction of all images, if there is no official test split
VALIDATION = 0.1  # fraction of the remaining images, if there is no official test split
COLUMNS = 50  # largest ratio of the ranges of two columns that is not announced
DEFAULT = DataConfig()

RANDOM = (
    "%s: items of this dataset are random; they are read again in each epoch, and evaluation "
    "always uses the same draw (data.stream=never reads each item once and keeps it)"
)
OWN_GENERATOR = (
    "%s: items of this dataset are random and use a generator of the dataset, so that each "
    "evaluation gets different images; use the global generator of torch, NumPy or Python"
)
UNITS = (
    "%s: one column of x has %.2g of the range of another; if they have different units, "
    "scale each one: %s"
)
ORDER = "give the axes of all splits in the same order"
FROZEN = "%s: items of this dataset are random; each was read once, and this draw is used always"
FROZEN_OWN_GENERATOR = (
    "%s: items of this dataset are random and use a generator of the dataset: each was read once, "
    "but a resume or an evaluation reads different images; use the global generator of torch, "
    "NumPy or Python"
)

log = logging.getLogger("latentforge")


@dataclass(frozen=True)
class _RawSplit:
    """One official split after its checks. `where` names it in errors."""

    x: Tensor | readers.Source  # (N, C, H, W) or (N, D), uint8 or float32
    labels: Labels | None
    layout: str  # of the stored array
    levels: Levels
    files: Sequence[str] | None  # the file of each example
    where: str
    columns: Mapping[str, Column]  # the factors as given
    y: Tensor | None = None  # int64 (N,), indices of the classes of all splits
    table: Table = field(default_factory=dict)  # the factors of all splits


def prepare(
    load: Callable[[str], Arrays | Dataset[Any]],
    official: Sequence[str],
    name: str,
    config: DataConfig = DEFAULT,
) -> DataSplits:
    """Load, check and split the dataset `name`, which has the splits `official`, as the section
    [data] in `config` specifies.

    An official test split is unchanged; without one, the fraction `test` of the training images is
    split off. Then the fraction `validation` of the rest is split off. None means 0.2 for `test`;
    for `validation` it means 0 if there is an official test or validation split, and otherwise 0.1.
    Both splits are a pure function of `split_seed`. `stream` determines whether images are read on
    demand instead of now. Raises UsageError for invalid data.
    """
    _check_splits(official, config, name)
    loaded = {split: load(split) for split in official}
    config = choose_kind(loaded, choose_range(loaded, config, name), name)
    is_array = isinstance(loaded["train"], Arrays)
    # a dataset that declares a range knows its columns, and the user cannot change them
    declared = name != IN_MEMORY and getattr(loaded["train"], "range", None)
    sources, splits = _load_sources(loaded, name, config)
    # columns of counts have one unit
    if config.range != "counts" and not config.normalize and not declared:
        warn_if_columns_differ(splits["train"], name, config)
    if config.layout == "auto":
        first = sources["train"]
        warn_if_unusual(first.x.shape, first.layout, first.where, is_array=is_array)
    validation, test, seed = config.validation, config.test, config.split_seed
    if validation is None:
        validation = 0.0 if {"test", "validation"} & set(official) else VALIDATION
    if "test" not in official:
        split_off(splits, "test", TEST if test is None else test, seed, name)
    if validation:
        split_off(splits, "validation", validation, seed, name)
    data = _build_splits(sources, splits, config)
    if counts := data.class_counts():
        for warning in check_counts(counts):
            log.warning("%s: %s", name, warning)
    return data


def warn_if_columns_differ(images: ImageSplit, name: str, config: DataConfig) -> None:
    """Warn about vectors (N, D) some of whose columns use only a small part of the range of others,
    as those of a table with several units."""
    if images.spec.kind != "vector":
        return
    count = min(len(images), SAMPLE)
    x = images.batch(torch.arange(count, device=images.device) * len(images) // count).x
    spans = x.amax(0) - x.amin(0)
    spans = spans[spans > 0]
    if len(spans) and float(spans.min()) * COLUMNS < float(spans.max()):
        hint = "x = (x - x.min(0)) / (x.max(0) - x.min(0))"
        if config.range == "any":  # whose values standardization keeps in the range
            hint = data_option(name, normalize=True)
        log.warning(UNITS, name, float(spans.min() / spans.max()), hint)


def prepare_whole(loaded: Mapping[str, Any], name: str, config: DataConfig = DEFAULT) -> DataSplits:
    """Prepare the given splits and create no others: the fractions in `config` are ignored. Raises
    UsageError for invalid data."""
    config = choose_kind(loaded, choose_range(loaded, config, name), name)
    return _build_splits(*_load_sources(dict(loaded), name, config), config)


def _load_sources(
    loaded: dict[str, Any], name: str, config: DataConfig
) -> tuple[dict[str, _RawSplit], dict[str, ImageSplit]]:
    """Check the given splits and return them, either all streamed or all in memory."""
    places = {split: f"{name}, split {split}" for split in loaded}
    streams = {}
    if config.stream != "never":
        streams = {
            key: readers.open_source(data, places[key], config) for key, data in loaded.items()
        }
    size = sum(math.prod(s.shape) * s.dtype.itemsize for s in streams.values() if s)
    reason = streaming_reason(config, size, host_memory(), "memory")
    datasets = [s for s in streams.values() if isinstance(s, readers.DatasetSource) and s.random]
    for message, seeded in ((RANDOM, True), (OWN_GENERATOR, False)):
        if names := [source.where for source in datasets if source.seeded is seeded]:
            log.warning(message, " and ".join(names))
            reason = reason or "its items are random"
    sources = {}
    for split, where in places.items():
        data = loaded.pop(split)  # frees the original after its conversion
        load = _stream if reason else _load_all
        sources[split] = load(data, streams.get(split), where, config)
    sources, classes = _unite_labels(sources)
    tables, factors = unite_factors({split: source.columns for split, source in sources.items()})
    spec = _build_spec(list(sources.values()), classes, factors)
    sources = {split: replace(source, table=tables[split]) for split, source in sources.items()}
    splits = {
        split: _build_split(source, spec, config, reason) for split, source in sources.items()
    }
    return sources, splits


def _build_split(source: _RawSplit, spec: DataSpec, config: DataConfig, reason: str) -> ImageSplit:
    options: dict[str, Any] = {"files": source.files, "table": source.table}
    if isinstance(source.x, Tensor):
        return ImageSplit(source.x, source.y, spec, **options)
    options |= {"workers": config.workers, "reason": reason}
    return StreamedImages(source.x, source.y, spec, **options)


def _unite_labels(sources: dict[str, _RawSplit]) -> tuple[dict[str, _RawSplit], tuple[str, ...]]:
    """Give all splits the same classes. Returns the splits with their labels, and the names of the
    classes. Conversions are announced."""
    labels = {split: source.labels for split, source in sources.items() if source.labels}
    if not labels:
        return sources, ()
    first = next(iter(sources.values()))
    for other in sources.values():
        if (other.labels is None) != (first.labels is None):
            here, there = ("missing" if s.labels is None else "present" for s in (other, first))
            raise UsageError(
                f"{other.where}: labels {here}, but {first.where}: labels {there}",
                hint="give labels for every split, or leave out the splits without labels",
            )
    indices, classes, message = unite(labels)
    name = first.where.partition(", split")[0]
    if message:
        log.warning("%s: %s", name, message)
    return {split: replace(source, y=indices[split]) for split, source in sources.items()}, classes


def _build_splits(
    sources: Mapping[str, _RawSplit], splits: Mapping[str, ImageSplit], config: DataConfig
) -> DataSplits:
    assert config.range
    first = next(iter(splits.values()))
    spec = find_spec(config.range, first.spec, splits.get("train", first))
    splits = {split: images.relabelled(images.y, spec) for split, images in splits.items()}
    source = next(iter(sources.values()))  # all have the same dtype, and all or none are streamed
    sample = fingerprint_sample(sources, spec)
    whole = isinstance(source.x, Tensor)
    return DataSplits(
        spec=spec,
        splits={
            split: splits[split].binarized(config.binarize, split, config.split_seed)
            for split in SPLITS
            if split in splits
        },
        fingerprint=fingerprint_all(sources, spec) if whole else sample,
        preprocessing={
            "shape": list(spec.shape),
            "kind": spec.kind,
            "layout": source.layout,
            "stored": source.levels.dtype,
            "black": source.levels.black,
            "white": source.levels.white,
            "divide_by": 255 if source.x.dtype == torch.uint8 else 1,
            "range": to_json(spec.range),
            **({"limits": list(spec.limits)} if spec.limits else {}),
            "binarize": config.binarize,
            **(
                {"one_hot": source.labels.columns}
                if source.labels and source.labels.columns
                else {}
            ),
        },
        sample=sample,
        config=config,
        drawn=splits.keys() - sources.keys(),
    )


def _check_splits(official: Sequence[str], config: DataConfig, name: str) -> None:
    if "train" not in official or not set(official) <= set(SPLITS):
        raise UsageError(
            f"dataset {name} has the splits {', '.join(official) or '(none)'}",
            hint=f"name them {', '.join(SPLITS)}; train is required",
        )
    for split, fraction in (("validation", config.validation), ("test", config.test)):
        if fraction and split in official:
            raise UsageError(
                f"dataset {name} has its own {split} split",
                hint=f"remove data.{split}, the fraction to split off ({fraction})",
            )


def _load_all(
    data: Any, source: readers.Source | None, where: str, config: DataConfig
) -> _RawSplit:
    """Load all images into memory."""
    arrays = data if isinstance(data, Arrays) else _gather(data, source, where, config)
    where = arrays.where or where
    levels = find_scale(dtype_name(arrays.x), config, where)
    x = as_tensor(arrays.x, where)
    y = arrays.y
    labels = len(y) if y is not None and getattr(y, "ndim", 1) > 0 else None
    labels = labels if isinstance(data, Arrays) else len(x)  # items are the first axis
    layout = find_layout(x.shape, config.layout, where, labels)
    if not x.numel():
        raise UsageError(f"{where}: there are no examples, x has shape {tuple(x.shape)}")
    x = levels.scale(to_standard(x, layout), where)
    levels.warn_if_dark(x, where, is_whole=True)
    return _make_source(x, arrays, data, layout, levels, where)


def _stream(data: Any, source: readers.Source | None, where: str, config: DataConfig) -> _RawSplit:
    """Load the labels into memory, but leave the images where they are stored."""
    if source is None:
        stored = _load_all(data, None, where, config)
        assert isinstance(stored.x, Tensor)
        return replace(stored, x=readers.InMemory(stored.x, where))
    arrays = data
    if isinstance(source, readers.DatasetSource):
        arrays = Arrays(source.first, source.labels(), class_names(data, source.where))
    sample = source.read(range(min(len(source), SAMPLE_BATCH)))
    source.levels.warn_if_dark(sample, source.where, is_whole=False)
    return _make_source(source, arrays, data, source.layout, source.levels, source.where)


def _make_source(
    x: Tensor | readers.Source, arrays: Arrays, data: Any, layout: str, levels: Levels, where: str
) -> _RawSplit:
    """`data` are the arrays or the dataset that they come from, which may name its files."""
    labels = None
    if arrays.y is not None:
        labels = read_labels(arrays.y, len(x), arrays.classes, where)
    factors = arrays.factors
    if factors is None and not isinstance(data, Arrays):
        factors = dataset_factors(data, where)
    columns = {} if factors is None else read_factors(factors, len(x), where)
    files = data.files if isinstance(data, Arrays) else item_values(data, "files")
    if files is not None and len(files) != len(x):  # of the shards of a dataset
        files = None
    names = None if files is None else [as_text(str(file)) for file in files]
    return _RawSplit(x, labels, layout, levels, names, where, columns)


def _gather(dataset: Any, source: readers.Source | None, where: str, config: DataConfig) -> Arrays:
    """Read a map-style dataset completely, with its method `whole()` if it has one."""
    readers.check_dataset(dataset, where)
    if callable(read_all := getattr(dataset, "whole", None)):
        arrays: Arrays = read_all()
        return arrays
    examples = source or readers.DatasetSource(dataset, where, config)
    assert isinstance(examples, readers.DatasetSource)
    if examples.random:
        log.warning(FROZEN if examples.seeded else FROZEN_OWN_GENERATOR, where)
    x, labels = np.empty((len(dataset), *examples.first.shape), examples.first.dtype), []
    for i in range(len(dataset)):
        # the same draw in every process and after a resume
        with seeded_draws(mix("frozen item", i)) if examples.random else nullcontext():
            x[i], label = examples.read_example(i)
        labels.append(label)
    y = None if examples.label is None else readers.as_labels(labels)
    return Arrays(x, y, class_names(dataset, where))


def _build_spec(
    sources: Sequence[_RawSplit], classes: tuple[str, ...], factors: tuple[Factor, ...]
) -> DataSpec:
    """Return the DataSpec of all splits. Raises UsageError if their properties differ."""
    first = sources[0]
    for other in sources[1:]:
        properties = (
            ("shape", tuple(first.x.shape[1:]), tuple(other.x.shape[1:])),
            ("type", dtype_name(first.x), dtype_name(other.x)),
        )
        for name, there, here in properties:
            if here != there:
                order = ORDER if sorted(map(str, here)) == sorted(map(str, there)) else ""
                raise UsageError(
                    f"{other.where}: {name} {here}, but {first.where}: {name} {there}",
                    hint=suggest_types(str(here), str(there)) if name == "type" else order,
                )
    shape = tuple(first.x.shape[1:])
    return DataSpec(shape=shape, kind=kind_of(shape), classes=classes, factors=factors)


def suggest_types(here: str, there: str) -> str:
    """Return what to write for a split whose type `here` is not the type `there` of the first."""
    if here == "uint8":
        return "x / 255 for this split, if the other one goes from 0 to 1"
    if there == "uint8":
        return (
            "x.astype('uint8') for this split if it goes from 0 to 255, else x / 255 for the other"
        )
    return "convert the values of all splits to one type"
