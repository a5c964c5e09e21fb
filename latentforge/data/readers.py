"""Readers of images that are not in memory: from a memory-mapped file, an archive or a dataset.

They read by index, also in worker processes, and report errors. They do not depend on an order, a
split or a device.
"""

from __future__ import annotations

import hashlib
import logging
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentforge.config.schema import DataConfig
from latentforge.contracts import Arrays
from latentforge.data.arrays import as_tensor, data_option
from latentforge.data.attributes import LABELS, item_values
from latentforge.data.labels import are_probabilities
from latentforge.data.layout import SIGNAL, find_layout, to_standard
from latentforge.data.pictures import is_image, is_picture, to_pixels
from latentforge.data.ranges import find_scale
from latentforge.errors import LatentForgeError, RunFailed, UsageError, one_line
from latentforge.io.text import counted
from latentforge.seeding import mix, seeded_draws

Array = np.ndarray[Any, Any]

HINT = "fix or replace it; `latentforge train --resume RUN` continues from the last checkpoint"
IDENTIFIERS = ("id", "index", "idx", "name", "file", "filename", "path")  # keys of no label
TRIED = 16  # items of a dataset that are read twice, to find out whether they are random

log = logging.getLogger("latentforge")


class Source:
    """Images of one shape and dtype that can be read in any order. `shape` is (N, C, H, W) or
    (N, D). `dtype`, uint8 or float32, is that of the result of `read`. `where` names the images in
    errors."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    labels_of: int | None = None  # of the first axis, if it is known to count the images

    def __init__(self, where: str, count: int, config: DataConfig) -> None:
        self.where = where
        stored = self.rows([0])
        self.layout = find_layout((count, *stored.shape[1:]), config.layout, where, self.labels_of)
        if not self.layout.startswith("N"):
            raise UsageError(
                f"{where}: data.layout={self.layout}, but streamed images must be the first axis",
                hint="--set data.stream=never for arrays; items of a dataset have no axis N",
            )
        self.levels = find_scale(stored.dtype.name, config, where)
        shape = to_standard(as_tensor(stored, where), self.layout).shape  # values are checked later
        self.shape = (count, *shape[1:])
        self.dtype = torch.uint8 if self.levels.is_stored else torch.float32

    def convert(self, rows: Array) -> Tensor:
        """Convert stored examples to images, (B, *shape[1:])."""
        x = to_standard(as_tensor(rows, self.where), self.layout)
        return self.levels.scale(x, self.where)

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, indices: Sequence[int]) -> Array:
        """The examples as stored, (B, ...)."""
        raise NotImplementedError

    def read(self, indices: Sequence[int]) -> Tensor:
        """The images at `indices`: (B, *shape[1:]) of `dtype`, on the CPU.

        Raises a UsageError that names the example or the file that cannot be read.
        """
        if not len(indices):  # the shard of a small batch may be empty
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        rows = self.rows(indices)
        try:
            return self.convert(rows)
        except UsageError as error:
            x = to_standard(as_tensor(rows, self.where), self.layout)
            for index, image in zip(indices, x, strict=True):
                try:
                    self.levels.scale(image, f"{self.where}, example {index}")
                except UsageError as one:  # the suggestion is that for all of `indices`
                    raise UsageError(one.message, details=one.details, hint=error.hint) from None
            raise


class InMemory(Source):
    """Images in the host's memory, streamed to a device whose memory is too small for them."""

    def __init__(self, x: Tensor, where: str) -> None:
        self.x, self.where = x, where
        self.shape, self.dtype = tuple(x.shape), x.dtype

    def read(self, indices: Sequence[int]) -> Tensor:
        return self.x.index_select(0, torch.as_tensor(indices, dtype=torch.int64))


class StridedArray(Source):
    """A memory-mapped array with any strides, read by numpy."""

    def __init__(self, x: Array, where: str, config: DataConfig) -> None:
        self.x = x
        super().__init__(where, len(x), config)

    def rows(self, indices: Sequence[int]) -> Array:
        return np.asarray(self.x[list(indices)])


class MappedFile(Source):
    """The rows of a memory-mapped file, each of which is contiguous.

    The file is read with `read`, not through the map. If the file was truncated meanwhile, reading
    raises an error, whereas the map would end the process (SIGBUS). Also, the pages that were read
    do not count as memory of this process.
    """

    def __init__(self, x: np.memmap[Any, Any], start: int, where: str, config: DataConfig) -> None:
        assert x.filename is not None
        self.path, self.start, self.step = Path(x.filename), start, x.strides[0]
        self.row_shape, self.row_strides, self.row_dtype = x.shape[1:], x.strides[1:], x.dtype
        self.row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
        super().__init__(where, len(x), config)

    def rows(self, indices: Sequence[int]) -> Array:
        buffer = np.empty((len(indices), self.row_bytes), np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:  # opened per call: no shared position
                for index, row in zip(indices, buffer, strict=True):
                    file.seek(self.start + index * self.step)
                    if (count := file.readinto(row.data)) != self.row_bytes:
                        missing = counted(self.row_bytes - count, "byte")
                        raise UsageError(
                            f"{self.where}: image {index} of {self.path} cannot be read",
                            details=[f"the file ends {missing} too early"],
                            hint=HINT,
                        )
        except OSError as error:
            raise UsageError(
                f"{self.where}: {self.path} cannot be read", details=[one_line(error)], hint=HINT
            ) from error
        shape, strides = (len(indices), *self.row_shape), (self.row_bytes, *self.row_strides)
        return np.ndarray(shape, self.row_dtype, buffer.data, strides=strides)


class DatasetSource(Source):
    """A map-style dataset of x or (x, y), where x is a tensor, an array or a PIL image.

    `random` is whether an item that is read twice differs. The random numbers of such a dataset
    are then a function of the batch in which the item is read: they differ between epochs, whose
    order differs, and are the same after a resume and in every evaluation. This needs a dataset
    that draws from the global generators of torch, NumPy or Python; `seeded` is whether it does.
    """

    def __init__(self, dataset: Any, where: str, config: DataConfig) -> None:
        check_dataset(dataset, where)
        self.dataset, self.where, self.random, self.seeded = dataset, where, False, True
        self.tried: dict[int, Any] = {}  # the labels of some items
        if callable(getattr(dataset, "set_epoch", None)):
            log.warning("%s: set_epoch of this dataset is not called", where)
        self.labels_of = len(dataset)
        self.first, self.label = read_item(dataset, 0, where)
        check_kind(self.first, self.label, where)
        self.random = not callable(getattr(dataset, "whole", None)) and self._is_random(
            config.stream
        )
        super().__init__(where, len(dataset), config)

    def rows(self, indices: Sequence[int]) -> Array:
        x = np.empty((len(indices), *self.first.shape), self.first.dtype)
        batch = hashlib.blake2b(repr([*indices]).encode(), digest_size=7).digest()
        for row, index in enumerate(indices):
            if not self.random:
                x[row], _ = self.read_example(index)
                continue
            with seeded_draws(mix("random item", int.from_bytes(batch), index)):
                x[row], _ = self.read_example(index)
        return x

    def read_example(self, index: int) -> tuple[Array, Any]:
        """Read an unmodified example. Raises UsageError if it is unlike the first one."""
        x, y = read_item(self.dataset, index, self.where)
        signature = (x.shape, x.dtype, y is None)
        if signature != (self.first.shape, self.first.dtype, self.label is None):
            raise UsageError(
                f"{self.where}: example {index} is {describe_example(x, y)}, "
                f"example 0 is {describe_example(self.first, self.label)}",
                hint="give every example the same shape and type (resize, convert)",
            )
        return x, y

    def labels(self) -> Any:
        """The labels of all examples. A dataset is read once from end to end, unless it has
        `targets` that are the labels of its items."""
        if self.label is None:
            return None
        targets = item_values(self.dataset, "targets")
        if targets is not None:
            expected, found = as_labels([targets[i] for i in self.tried]), [*self.tried.values()]
            if all(one == other for one, other in zip(expected, as_labels(found), strict=True)):
                return targets
            message = "%s: its `targets` are not the labels of its items, which are used"
            log.warning(message, self.where)
        return as_labels([self.read_example(index)[1] for index in range(len(self))])

    def _is_random(self, stream: str) -> bool:
        """Read some items twice and compare them. Raises UsageError for random labels, unless each
        item is read once: labels are read before the images, so that they would not match."""
        count, is_random = len(self.dataset), False
        for index in sorted({number * count // TRIED for number in range(TRIED)}):
            (one, y), (other, y_again) = (self.read_example(index) for _ in range(2))
            self.tried[index] = y
            if stream != "never" and repr(y) != repr(y_again):  # NaN is not equal to itself
                hint = f"{data_option(self.where, stream='never')}, which reads each item once"
                if are_probabilities(np.asarray(y)):  # as of mixup
                    hint = "give the dataset without the mixing of images and labels"
                raise UsageError(
                    f"{self.where}: the label of item {index} is random: {y} and {y_again}",
                    hint=hint,
                )
            if not is_random and not is_same(one, other):
                is_random = True
                first = self._read_seeded(index)
                again = (self._read_seeded(index) for _ in range(TRIED))
                self.seeded = all(is_same(first, other) for other in again)
        return is_random

    def _read_seeded(self, index: int) -> Array:
        with seeded_draws(mix("random item", index)):
            return self.read_example(index)[0]


def open_source(data: Any, where: str, config: DataConfig) -> Source | None:
    """Return a source that reads `data` on demand, or None if it is already in memory."""
    if not isinstance(data, Arrays):
        return DatasetSource(data, where, config)
    x, where = data.x, data.where or where
    if not isinstance(x, np.memmap) or not len(x):
        return None
    is_first = config.layout in ("auto", SIGNAL) or config.layout[0] == "N"
    if not is_first and config.stream != "always":
        return None  # the images are not the first axis
    root: Any = x
    while isinstance(root.base, np.memmap):
        root = root.base
    if not isinstance(root.base, mmap.mmap) or root.filename is None:
        return None  # a copy that is still a memmap, or a map without a file
    spans = zip(x.shape[1:], x.strides[1:], strict=True)
    span = x.dtype.itemsize + sum((n - 1) * stride for n, stride in spans)
    contiguous = span == math.prod(x.shape[1:]) * x.dtype.itemsize and min(x.strides) > 0
    if not contiguous or x.dtype.hasobject:
        return StridedArray(x, where, config)
    return MappedFile(x, root.offset + x.ctypes.data - root.ctypes.data, where, config)


def check_dataset(dataset: Any, where: str) -> None:
    """Raise UsageError unless `dataset` is a map-style dataset with at least one example."""
    is_map_style = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not is_map_style or isinstance(dataset, (tuple, Mapping, str)):
        raise UsageError(
            f"{where}: load returned a {type(dataset).__name__}",
            hint="return Arrays(x=..., y=...), or a Dataset with __getitem__ and __len__",
        )
    if not len(dataset):
        raise UsageError(f"{where}: there are no examples")


def check_kind(first: Array, label: Any, where: str) -> None:
    """Raise UsageError for examples that are texts or files instead of images."""
    is_path = first.dtype.kind == "U" or (first.size and isinstance(first.flat[0], PurePath))
    if not is_path and first.dtype.kind != "S":
        return
    found, file = (repr(str(first)), "x") if is_path else ("bytes", "io.BytesIO(x)")
    image = f"PIL.Image.open({file}).copy()"  # a copy, so that the file is closed
    items = f"{image} for x in data" if label is None else f"({image}, y) for x, y in data"
    raise UsageError(
        f"{where}: example 0 is {found}, not an image",
        hint=f"data=[{items}], if these are {'paths of images' if is_path else 'image files'}",
    )


def is_same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def read_item(dataset: Any, index: int, where: str) -> tuple[Array, Any]:
    """Read an example of a map-style dataset and its label, which is None if there is none. Raises
    a UsageError that names it."""
    try:
        example = dataset[index]
    except (LatentForgeError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(f"{where}: example {index} cannot be read: {one_line(error)}") from error
    if isinstance(example, Mapping):
        keys = ", ".join(map(repr, example))
        raise UsageError(
            f"{where}: example {index} is a dict with the keys {keys}; it must be x or (x, y)",
            hint=f"data={suggest_pairs(example, dataset)}",
        )
    x, *labels = example if isinstance(example, (tuple, list)) else (example,)
    if len(labels) > 1:
        raise UsageError(
            f"{where}: example {index} has {1 + len(labels)} parts; it must be x or (x, y)"
        )
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise UsageError(
                f"{where}: example {index} is a sparse tensor", hint="return x.to_dense()"
            )
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    elif is_picture(x):
        x = to_pixels(x, "auto")
    if isinstance(x, tuple | list) and any(map(is_image, x)):
        raise UsageError(
            f"{where}: the image of example {index} is a {type(x).__name__} of "
            f"{counted(len(x), 'array')}",
            hint="give one of them, as in data=[(x[0], y) for x, y in data]",
        )
    label = labels[0] if labels else None
    if is_image(label) and not is_image(x) and not isinstance(x, list | tuple):
        raise UsageError(
            f"{where}: example {index} is a {type(x).__name__} and an image, in this order",
            hint="data=[(data[i][1], data[i][0]) for i in range(len(data))]",
        )
    if is_picture(label) or len(getattr(label, "shape", ())) > 1:
        raise UsageError(
            f"{where}: the label of example {index} is an image",
            hint="data=[data[i][0] for i in range(len(data))]",
        )
    if isinstance(label, Tensor):
        label = label.detach().cpu().numpy()
    return np.asarray(x), label


def suggest_pairs(item: Mapping[Any, Any], dataset: Any) -> str:
    """Return the Python code that converts a dataset with items such as `item` to pairs."""
    is_list = isinstance(dataset, list | tuple)  # others may have no end if they are iterated
    items = "dataset" if is_list else "map(dataset.__getitem__, range(len(dataset)))"
    images = [key for key, value in item.items() if is_image(value)]
    others = [key for key in item if key not in images]
    labels = [key for key in others if str(key).lower() in LABELS]
    labels = labels or [key for key in others if str(key).lower() not in IDENTIFIERS]
    if len(images) != 1 or len(labels) > 1:
        return f"[(item[IMAGE], item[LABEL]) for item in {items}], with two of these keys"
    if not labels:
        return f"[item[{images[0]!r}] for item in {items}]"
    y = f"item[{labels[0]!r}]"
    if hasattr(dataset, "classes") and isinstance(item[labels[0]], int):
        y = f"dataset.classes[{y}]"
    return f"[(item[{images[0]!r}], {y}) for item in {items}]"


def as_labels(labels: list[Any]) -> Any:
    """Return labels of single examples with Python's types; labels.py checks them."""
    return [
        label.tolist() if isinstance(label, np.ndarray | np.generic | Tensor) else label
        for label in labels
    ]


def describe_example(x: Array, y: Any) -> str:
    return f"{x.dtype} {x.shape} {'without a label' if y is None else 'with a label'}"


@dataclass(frozen=True)
class Reader:
    """Reads the images at a list of indices for a DataLoader, or returns the error.

    The error is not raised, because torch turns an error of a worker into a line with a traceback.
    """

    source: Source

    def __getitem__(self, indices: Sequence[int]) -> Tensor | RunFailed:
        try:
            return self.source.read(indices)
        except MemoryError:
            raise
        except LatentForgeError as error:
            return RunFailed(error.message, details=error.details, hint=error.hint or HINT)
        except Exception as error:
            return RunFailed(f"{self.source.where}: {one_line(error)}", hint=HINT)
