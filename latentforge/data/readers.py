"""Readers of images that are not in memory: from a memory-mapped file, an archive or a dataset.

They read by index, also in worker processes, and report errors. They do not depend on an order, a
split or a device.
"""

from __future__ import annotations

import math
import mmap
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentforge.contracts import Arrays
from latentforge.data.arrays import as_tensor, check_pixels, to_channels_first
from latentforge.errors import LatentForgeError, RunFailed, UsageError, one_line

Array = np.ndarray[Any, Any]

HINT = "fix or replace it; train --resume continues a run from its last checkpoint"


class Source:
    """Images of one shape and dtype that can be read in any order. `shape` is (N, C, H, W) or
    (N, D). `dtype`, uint8 or float32, is that of the result of `read`. `where` names the images in
    errors."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __init__(self, where: str, count: int) -> None:
        self.where = where
        first = to_channels_first(as_tensor(self.rows([0]), where), where)
        self.shape, self.dtype = (count, *first.shape[1:]), first.dtype

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
        x = to_channels_first(as_tensor(self.rows(indices), self.where), self.where)
        try:
            return check_pixels(x, self.where)
        except UsageError:
            for index, image in zip(indices, x, strict=True):
                check_pixels(image, f"{self.where}, example {index}")
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

    def __init__(self, x: Array, where: str) -> None:
        self.x = x
        super().__init__(where, len(x))

    def rows(self, indices: Sequence[int]) -> Array:
        return np.asarray(self.x[list(indices)])


class MappedFile(Source):
    """The rows of a memory-mapped file, each of which is contiguous.

    The file is read with `read`, not through the map. If the file was truncated meanwhile, reading
    raises an error, whereas the map would end the process (SIGBUS). Also, the pages that were read
    do not count as memory of this process.
    """

    def __init__(self, x: np.memmap[Any, Any], start: int, where: str) -> None:
        assert x.filename is not None
        self.path, self.start, self.step = Path(x.filename), start, x.strides[0]
        self.row_shape, self.row_strides, self.row_dtype = x.shape[1:], x.strides[1:], x.dtype
        self.row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
        super().__init__(where, len(x))

    def rows(self, indices: Sequence[int]) -> Array:
        buffer = np.empty((len(indices), self.row_bytes), np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:  # opened per call: no shared position
                for index, row in zip(indices, buffer, strict=True):
                    file.seek(self.start + index * self.step)
                    if (count := file.readinto(row.data)) != self.row_bytes:
                        raise UsageError(
                            f"{self.where}: image {index} of {self.path} cannot be read",
                            details=[f"the file ends {self.row_bytes - count} bytes too early"],
                            hint=HINT,
                        )
        except OSError as error:
            raise UsageError(
                f"{self.where}: {self.path} cannot be read", details=[one_line(error)], hint=HINT
            ) from error
        shape, strides = (len(indices), *self.row_shape), (self.row_bytes, *self.row_strides)
        return np.ndarray(shape, self.row_dtype, buffer.data, strides=strides)


class DatasetSource(Source):
    """A map-style dataset of x or (x, y), where x is a tensor, an array or a PIL image."""

    def __init__(self, dataset: Any, where: str) -> None:
        check_dataset(dataset, where)
        self.dataset, self.where = dataset, where
        self.first, self.label = read_item(dataset, 0, where)
        super().__init__(where, len(dataset))

    def rows(self, indices: Sequence[int]) -> Array:
        x = np.empty((len(indices), *self.first.shape), self.first.dtype)
        for row, index in enumerate(indices):
            x[row], _ = self.read_example(index)
        return x

    def read_example(self, index: int) -> tuple[Array, int | None]:
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

    def labels(self) -> Array | None:
        """The labels of all examples. A dataset without `targets` is read once from end to end."""
        if self.label is None:
            return None
        targets = getattr(self.dataset, "targets", None)  # torchvision's convention
        if targets is not None and len(targets) == len(self):
            return np.asarray(targets)
        return np.array([self.read_example(index)[1] for index in range(len(self))], np.int64)


def open_source(data: Any, where: str) -> Source | None:
    """Return a source that reads `data` on demand, or None if it is already in memory."""
    if not isinstance(data, Arrays):
        return DatasetSource(data, where)
    x = data.x
    if not isinstance(x, np.memmap) or not len(x):
        return None
    root: Any = x
    while isinstance(root.base, np.memmap):
        root = root.base
    if not isinstance(root.base, mmap.mmap) or root.filename is None:
        return None  # a copy that is still a memmap, or a map without a file
    spans = zip(x.shape[1:], x.strides[1:], strict=True)
    span = x.dtype.itemsize + sum((n - 1) * stride for n, stride in spans)
    contiguous = span == math.prod(x.shape[1:]) * x.dtype.itemsize and min(x.strides) > 0
    if not contiguous or x.dtype.hasobject:
        return StridedArray(x, where)
    return MappedFile(x, root.offset + x.ctypes.data - root.ctypes.data, where)


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


def class_names(dataset: Any) -> Sequence[str]:
    """The class names of a dataset that follows torchvision's convention; empty for others."""
    classes = getattr(dataset, "classes", ())
    return classes if isinstance(classes, (list, tuple)) else ()


def read_item(dataset: Any, index: int, where: str) -> tuple[Array, int | None]:
    """Read an example of a map-style dataset and its label. Raises a UsageError that names it."""
    try:
        example = dataset[index]
    except (LatentForgeError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(f"{where}: example {index} cannot be read: {one_line(error)}") from error
    x, *labels = example if isinstance(example, (tuple, list)) else (example,)
    if len(labels) > 1:
        raise UsageError(
            f"{where}: example {index} has {1 + len(labels)} parts; it must be x or (x, y)"
        )
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    try:
        return np.asarray(x), operator.index(labels[0]) if labels else None
    except TypeError:  # from operator.index; int() would truncate 0.5 to 0
        raise UsageError(
            f"{where}: the label of example {index} is {labels[0]!r}, not an integer"
        ) from None


def describe_example(x: Array, y: int | None) -> str:
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
