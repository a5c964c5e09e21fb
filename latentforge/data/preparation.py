"""Prepares what a dataset returns: axis order, checks, splits, fingerprint.

Contains no dataset, and must not import Ignite.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentforge.config.schema import DataConfig
from latentforge.contracts import Arrays, DataSpec
from latentforge.data import readers
from latentforge.data.arrays import as_tensor, check_pixels, dtype_name, to_channels_first
from latentforge.data.images import ImageSplit
from latentforge.data.memory import streaming_reason
from latentforge.data.splits import DataSplits
from latentforge.data.streamed import StreamedImages
from latentforge.errors import UsageError
from latentforge.runtime.memory import host_memory
from latentforge.seeding import generator

SPLITS = ("train", "validation", "test")
TEST = 0.2  # fraction of all images, if there is no official test split
VALIDATION = 0.1  # fraction of the remaining images, if there is no official test split
MAX_CLASSES = 65_536  # for labels without names
SAMPLE = 256  # images of each split that the fingerprint of streamed data includes
SAMPLE_BATCH = 16  # images of the sample that are in memory at the same time
DEFAULT = DataConfig()


@dataclass(frozen=True)
class _Source:
    """One official split after its checks. `where` names it in errors."""

    x: Tensor | readers.Source  # (N, C, H, W) or (N, D), uint8 or float32
    y: Tensor | None  # int64 (N,)
    classes: tuple[str, ...]
    where: str


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
    sources, splits = _load_sources({split: load(split) for split in official}, name, config)
    validation, test, seed = config.validation, config.test, config.split_seed
    if validation is None:
        validation = 0.0 if {"test", "validation"} & set(official) else VALIDATION
    if "test" not in official:
        _split_off(splits, "test", TEST if test is None else test, seed, name)
    if validation:
        _split_off(splits, "validation", validation, seed, name)
    return _build_splits(sources, splits, config)


def prepare_whole(loaded: Mapping[str, Any], name: str, config: DataConfig = DEFAULT) -> DataSplits:
    """Prepare the given splits and create no others: the fractions in `config` are ignored. Raises
    UsageError for invalid data."""
    return _build_splits(*_load_sources(dict(loaded), name, config), config)


def _load_sources(
    loaded: dict[str, Any], name: str, config: DataConfig
) -> tuple[dict[str, _Source], dict[str, ImageSplit]]:
    """Check the given splits and return them, either all streamed or all in memory."""
    labels = {split: f"{name}, split {split}" for split in loaded}
    streams = {}
    if config.stream != "never":
        streams = {key: readers.open_source(data, labels[key]) for key, data in loaded.items()}
    size = sum(math.prod(s.shape) * s.dtype.itemsize for s in streams.values() if s)
    reason = streaming_reason(config, size, host_memory(), "memory")
    sources = {}
    for split, where in labels.items():
        data = loaded.pop(split)  # frees the original after its conversion
        sources[split] = _stream(data, streams[split], where) if reason else _load_all(data, where)
    spec = _build_spec(list(sources.values()))
    splits = {
        split: ImageSplit(source.x, source.y, spec)
        if isinstance(source.x, Tensor)
        else StreamedImages(source.x, source.y, spec, workers=config.workers, reason=reason)
        for split, source in sources.items()
    }
    return sources, splits


def _build_splits(
    sources: Mapping[str, _Source], splits: Mapping[str, ImageSplit], config: DataConfig
) -> DataSplits:
    spec = next(iter(splits.values())).spec
    first = next(iter(sources.values())).x  # all have the same dtype, and all or none are streamed
    sample = _sample_fingerprint(sources, spec.classes)
    return DataSplits(
        spec=spec,
        splits={
            split: splits[split].binarized(config.binarize, split, config.split_seed)
            for split in SPLITS
            if split in splits
        },
        fingerprint=_fingerprint(sources, spec.classes) if isinstance(first, Tensor) else sample,
        preprocessing={
            "shape": list(spec.shape),
            "kind": spec.kind,
            "stored": dtype_name(first),
            "divide_by": 255 if first.dtype == torch.uint8 else 1,
            "range": list(spec.range),
            "binarize": config.binarize,
        },
        sample=sample,
        config=config,
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


def _load_all(data: Any, where: str) -> _Source:
    """Load all images into memory."""
    arrays = data if isinstance(data, Arrays) else _gather(data, where)
    x = check_pixels(to_channels_first(as_tensor(arrays.x, where), where), where)
    return _make_source(x, arrays.y, arrays.classes, where)


def _stream(data: Any, source: readers.Source | None, where: str) -> _Source:
    """Load the labels into memory, but leave the images where they are stored."""
    if source is None:
        stored = _load_all(data, where)
        assert isinstance(stored.x, Tensor)
        return replace(stored, x=readers.InMemory(stored.x, where))
    if isinstance(source, readers.DatasetSource):
        return _make_source(source, source.labels(), readers.class_names(data), where)
    return _make_source(source, data.y, data.classes, where)


def _make_source(x: Tensor | readers.Source, y: Any, classes: Sequence[str], where: str) -> _Source:
    names = tuple(_escape_unprintable(str(name)) for name in classes)
    labels = None if y is None else _check_labels(as_tensor(y, where), len(x), names, where)
    return _Source(x, labels, names, where)


def _gather(dataset: Any, where: str) -> Arrays:
    """Read a map-style dataset completely, with its method `whole()` if it has one."""
    readers.check_dataset(dataset, where)
    if callable(read_all := getattr(dataset, "whole", None)):
        arrays: Arrays = read_all()
        return arrays
    examples = readers.DatasetSource(dataset, where)
    x = np.empty((len(dataset), *examples.first.shape), examples.first.dtype)
    y = None if examples.label is None else np.empty(len(dataset), np.int64)
    for i in range(len(dataset)):
        x[i], label = examples.read_example(i)
        if y is not None and label is not None:
            y[i] = label
    return Arrays(x, y, readers.class_names(dataset))


def _escape_unprintable(name: str) -> str:
    """Escape characters that are not printable. File names may contain bytes that are not text,
    which a figure cannot show, and control codes for a terminal. Escaped names remain distinct."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _check_labels(y: Tensor, count: int, classes: Sequence[str], where: str) -> Tensor:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UsageError(f"{where}: y is {dtype_name(y)}, but labels must be integers")
    if y.shape != (count,):
        raise UsageError(f"{where}: y has shape {tuple(y.shape)}, but x has {count} examples")
    y = y.to(torch.int64).contiguous()
    low, high = (int(value) for value in y.aminmax())
    if low < 0 or (classes and high >= len(classes)):
        limit = f"to {len(classes) - 1} for the {len(classes)} classes" if classes else "upwards"
        raise UsageError(f"{where}: labels go from {low} to {high}; they must go from 0 {limit}")
    if not classes and high >= MAX_CLASSES:  # each number up to the highest gets a name
        raise UsageError(
            f"{where}: labels go up to {high}, but at most {MAX_CLASSES} classes are supported",
            hint="number the classes from 0: torch.unique(y, return_inverse=True)[1]",
        )
    return y


def _build_spec(sources: Sequence[_Source]) -> DataSpec:
    """Return the DataSpec of all splits. Raises UsageError if their properties differ."""
    first = sources[0]
    for other in sources[1:]:
        properties = (
            ("shape", tuple(first.x.shape[1:]), tuple(other.x.shape[1:])),
            ("type", dtype_name(first.x), dtype_name(other.x)),
            ("labels", *("missing" if s.y is None else "present" for s in (first, other))),
            ("classes", first.classes, other.classes),
        )
        for name, there, here in properties:
            if here != there:
                raise UsageError(f"{other.where}: {name} {here}, but {first.where}: {name} {there}")
    classes: tuple[str, ...] = ()
    labels = [source.y for source in sources if source.y is not None]
    if labels:
        classes = first.classes or tuple(map(str, range(1 + max(int(y.max()) for y in labels))))
    kind: Literal["image", "vector"] = "image" if len(first.x.shape) == 4 else "vector"
    return DataSpec(shape=tuple(first.x.shape[1:]), kind=kind, classes=classes)


def _split_off(
    splits: dict[str, ImageSplit], split: str, fraction: float, seed: int, name: str
) -> None:
    """Move a fraction of the training images to a new split, both in the order of the source."""
    if not 0.0 <= fraction < 1.0:
        raise UsageError(f"the {split} fraction is {fraction}; it must be at least 0 and below 1")
    images = splits["train"]
    n = len(images)
    count = round(n * fraction)
    if not 0 < count < n:
        raise UsageError(
            f"dataset {name}: a {split} fraction of {fraction} of {n} images is {count} "
            f"and leaves {n - count} for training; neither may be 0",
            hint=f"choose another {split} fraction",
        )
    order = torch.randperm(n, generator=generator("cpu", f"split {split}", seed))
    splits["train"] = images.select(order[count:].sort().values)
    splits[split] = images.select(order[:count].sort().values)


def _fingerprint(sources: Mapping[str, _Source], classes: Sequence[str]) -> str:
    """The fingerprint of images in memory: SHA-256 of every value, label and class name."""
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for split in sorted(sources):
        for key, values in (("x", sources[split].x), ("y", sources[split].y)):
            if isinstance(values, Tensor):  # there may be no labels
                digest.update(f"{split} {key} {dtype_name(values)} {tuple(values.shape)}".encode())
                digest.update(values.numpy().data)
    return digest.hexdigest()


def _sample_fingerprint(sources: Mapping[str, _Source], classes: Sequence[str]) -> str:
    """The fingerprint of streamed images, which are too large to read at the start: the SHA-256 of
    class names, shapes, dtypes, every label, and `SAMPLE` images of each split, always the same.

    It does not include file times, which a copy to another machine does not preserve.
    """
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for split in sorted(sources):
        x, y = sources[split].x, sources[split].y
        digest.update(f"{split} {dtype_name(x)} {tuple(x.shape)}".encode())
        if y is not None:
            digest.update(y.numpy().data)
        order = torch.randperm(len(x), generator=generator("cpu", "fingerprint"))
        for indices in torch.split(order[:SAMPLE].sort().values, SAMPLE_BATCH):
            images = x[indices] if isinstance(x, Tensor) else x.read(indices.tolist())
            digest.update(images.numpy().data)
    return f"sample-{digest.hexdigest()}"
