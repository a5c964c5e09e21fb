"""Readers of images that are not in memory: from a memory-mapped file, an archive or a dataset.

They read by index, also in worker processes, and report what is wrong. They know no order, no split
and no device.
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
from latentforge.data.arrays import as_tensor, laid_out, pixels
from latentforge.errors import LatentForgeError, RunFailed, UsageError, one_line

Array = np.ndarray[Any, Any]

MEND = "fix or replace it; train --resume continues a run from its last checkpoint"


class Source:
    """Images of one shape and dtype that can be read in any order. `shape` is (N, C, H, W) or
    (N, D), and `dtype` uint8 or float32, as for the result of `read`. `where` names them in
    errors."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __init__(self, where: str, count: int) -> None:
        self.where = where
        first = laid_out(as_tensor(self.rows([0]), where), where)
        self.shape, self.dtype = (count, *first.shape[1:]), first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, places: Sequence[int]) -> Array:
        """The examples as stored, (B, ...)."""
        raise NotImplementedError

    def read(self, places: Sequence[int]) -> Tensor:
        """The images at `places`: (B, *shape[1:]) of `dtype`, on the CPU.

        Raises UsageError that names the example, or the file, that cannot be read.
        """
        if not len(places):  # the shard of a small batch may be empty
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        x = laid_out(as_tensor(self.rows(places), self.where), self.where)
        try:
            return pixels(x, self.where)
        except UsageError:
            for place, one in zip(places, x, strict=True):
                pixels(one, f"{self.where}, example {place}")
            raise


class InMemory(Source):
    """Images in the host's memory, streamed to a device that is too small for them."""

    def __init__(self, x: Tensor, where: str = "") -> None:
        self.x, self.where = x, where
        self.shape, self.dtype = tuple(x.shape), x.dtype

    def read(self, places: Sequence[int]) -> Tensor:
        return self.x.index_select(0, torch.as_tensor(places, dtype=torch.int64))


class Rows(Source):
    """A memory-mapped array with any strides, read by numpy."""

    def __init__(self, x: Array, where: str) -> None:
        self.x = x
        super().__init__(where, len(x))

    def rows(self, places: Sequence[int]) -> Array:
        return np.asarray(self.x[list(places)])


class NumbersFile(Source):
    """The rows of a memory-mapped file, each of which is contiguous.

    Read with `read`, not through the map: a file that was truncated meanwhile is then an error,
    while the map would end the process (SIGBUS), and no pages count as memory of this process.
    """

    def __init__(self, x: np.memmap[Any, Any], start: int, where: str) -> None:
        assert x.filename is not None
        self.path, self.start, self.step = Path(x.filename), start, x.strides[0]
        self.row_shape, self.row_strides, self.row_dtype = x.shape[1:], x.strides[1:], x.dtype
        self.row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
        super().__init__(where, len(x))

    def rows(self, places: Sequence[int]) -> Array:
        held = np.empty((len(places), self.row_bytes), np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:  # per call: workers share no position
                for place, row in zip(places, held, strict=True):
                    file.seek(self.start + place * self.step)
                    if (read := file.readinto(row.data)) != self.row_bytes:
                        raise UsageError(
                            f"{self.where}: image {place} of {self.path} cannot be read",
                            details=[f"the file ends {self.row_bytes - read} bytes too early"],
                            remedy=MEND,
                        )
        except OSError as error:
            raise UsageError(
                f"{self.where}: {self.path} cannot be read", details=[one_line(error)], remedy=MEND
            ) from error
        shape, strides = (len(places), *self.row_shape), (self.row_bytes, *self.row_strides)
        return np.ndarray(shape, self.row_dtype, held.data, strides=strides)


class Examples(Source):
    """A map-style dataset of x or (x, y), where x is a tensor, an array or a PIL image."""

    def __init__(self, dataset: Any, where: str) -> None:
        check_dataset(dataset, where)
        self.dataset, self.where = dataset, where
        self.first, self.label = item(dataset, 0, where)
        super().__init__(where, len(dataset))

    def rows(self, places: Sequence[int]) -> Array:
        x = np.empty((len(places), *self.first.shape), self.first.dtype)
        for row, place in enumerate(places):
            x[row], _ = self.one(place)
        return x

    def one(self, place: int) -> tuple[Array, int | None]:
        """An unmodified example. Raises UsageError if it is unlike the first one."""
        x, y = item(self.dataset, place, self.where)
        alike = (x.shape, x.dtype, y is None)
        if alike != (self.first.shape, self.first.dtype, self.label is None):
            raise UsageError(
                f"{self.where}: example {place} is {described(x, y)}, "
                f"example 0 is {described(self.first, self.label)}",
                remedy="give every example the same shape and type (resize, convert)",
            )
        return x, y

    def labels(self) -> Array | None:
        """The labels of all examples. A dataset without `targets` is read once from end to end."""
        if self.label is None:
            return None
        told = getattr(self.dataset, "targets", None)  # torchvision's convention
        if told is not None and len(told) == len(self):
            return np.asarray(told)
        return np.array([self.one(place)[1] for place in range(len(self))], np.int64)


def streamable(loaded: Any, where: str) -> Source | None:
    """A source that reads on demand what a dataset returned; None if it is already in memory."""
    if not isinstance(loaded, Arrays):
        return Examples(loaded, where)
    x = loaded.x
    if not isinstance(x, np.memmap) or not len(x):
        return None
    root: Any = x
    while isinstance(root.base, np.memmap):
        root = root.base
    if not isinstance(root.base, mmap.mmap) or root.filename is None:
        return None  # a copy that is still a memmap, or a map without a file
    spans = zip(x.shape[1:], x.strides[1:], strict=True)
    span = x.dtype.itemsize + sum((n - 1) * stride for n, stride in spans)
    whole = span == math.prod(x.shape[1:]) * x.dtype.itemsize and min(x.strides) > 0
    if not whole or x.dtype.hasobject:
        return Rows(x, where)
    return NumbersFile(x, root.offset + x.ctypes.data - root.ctypes.data, where)


def check_dataset(dataset: Any, where: str) -> None:
    """Raise UsageError unless this is a map-style dataset with at least one example."""
    mapped = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not mapped or isinstance(dataset, (tuple, Mapping, str)):
        raise UsageError(
            f"{where}: load returned a {type(dataset).__name__}",
            remedy="return Arrays(x=..., y=...), or a Dataset with __getitem__ and __len__",
        )
    if not len(dataset):
        raise UsageError(f"{where}: there are no examples")


def class_names(dataset: Any) -> Sequence[str]:
    """The class names of a dataset that follows torchvision's convention, else none."""
    classes = getattr(dataset, "classes", ())
    return classes if isinstance(classes, (list, tuple)) else ()


def item(dataset: Any, i: int, where: str) -> tuple[Array, int | None]:
    """Example i of a map-style dataset and its label. Raises UsageError that names it."""
    try:
        given = dataset[i]
    except (LatentForgeError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(f"{where}: example {i} cannot be read: {one_line(error)}") from error
    x, *rest = given if isinstance(given, (tuple, list)) else (given,)
    if len(rest) > 1:
        raise UsageError(f"{where}: example {i} has {1 + len(rest)} parts; it must be x or (x, y)")
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    try:
        return np.asarray(x), operator.index(rest[0]) if rest else None
    except TypeError:  # from operator.index; int() would truncate 0.5 to 0
        raise UsageError(
            f"{where}: the label of example {i} is {rest[0]!r}, not an integer"
        ) from None


def described(x: Array, y: int | None) -> str:
    """A description of an example, for an error."""
    return f"{x.dtype} {x.shape} {'without a label' if y is None else 'with a label'}"


@dataclass(frozen=True)
class Reader:
    """Reads the images at a list of indices for a DataLoader, or returns the error.

    The error is not raised: torch turns one that a worker raises into one line with a traceback.
    """

    source: Source

    def __getitem__(self, places: Sequence[int]) -> Tensor | RunFailed:
        try:
            return self.source.read(places)
        except MemoryError:
            raise
        except LatentForgeError as error:
            return RunFailed(error.message, details=error.details, remedy=error.remedy or MEND)
        except Exception as error:
            return RunFailed(f"{self.source.where}: {one_line(error)}", remedy=MEND)
