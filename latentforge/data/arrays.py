"""Converts arrays of other libraries to tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentforge.config.schema import IN_MEMORY, DataConfig
from latentforge.errors import UsageError
from latentforge.io.paths import quoted
from latentforge.runtime.python_form import describe_splits

_form: ContextVar[Mapping[str, str]] = ContextVar("form", default=MappingProxyType({"train": "x"}))

_ranges: ContextVar[Mapping[str, str]] = ContextVar("ranges", default=MappingProxyType({}))


def as_tensor(values: Any, where: str) -> Tensor:
    """Convert `values` to a tensor on the CPU that shares their memory if possible. Integers other
    than uint8 become int64, and float64 is kept. Raises UsageError if they are not numbers."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{where}: values of type {array.dtype} are not real numbers")
    if array.dtype == np.uint64 or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        array = array.astype(np.float64)
    elif array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    array = np.asarray(array, array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def dtype_name(values: Any) -> str:
    """The dtype of an array or a tensor in numpy's spelling, such as uint8 or float32."""
    if isinstance(dtype := getattr(values, "dtype", None), torch.dtype):
        return str(dtype).removeprefix("torch.")
    return str(np.asarray(values).dtype.name)


@contextmanager
def suggestions_for(data: Any, config: DataConfig | None = None) -> Iterator[None]:
    """Let `data_option` write data that was passed in Python as it was passed: its splits, with
    labels if there are any, and the options of `config` that are not the defaults. Errors that are
    raised later, when streamed images are read, name the split train only."""
    default = vars(DataConfig())
    changed = {k: repr(v) for k, v in vars(config or DataConfig()).items() if v != default[k]}
    token = _form.set({**describe_splits(data), **changed})
    try:
        yield
    finally:
        _form.reset(token)


@contextmanager
def suggested_ranges(options: Mapping[str, str]) -> Iterator[None]:
    """Let `range_options` suggest these values of data.range, each with further options."""
    token = _ranges.set(options)
    try:
        yield
    finally:
        _ranges.reset(token)


def range_options(where: str) -> dict[str, str]:
    """Return the text that sets data.range for each value that may be suggested, with the further
    options. Real numbers are standardized, because their scale and their units are unknown."""
    texts = {}
    for values, more in _ranges.get().items():
        text = data_option(where, range=values, **({"normalize": True} if values == "any" else {}))
        separator = ", " if where.startswith(IN_MEMORY) else " "
        texts[values] = separator.join(filter(None, [text, more]))
    return texts


def format_option(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def data_option(where: str, **options: Any) -> str:
    """Return the text that sets options of [data] in a command, or in Python if `where` begins
    with the name of data that was passed in Python."""
    if where.startswith(IN_MEMORY):
        form = {**_form.get(), **{key: repr(value) for key, value in options.items()}}
        return f"data={{{', '.join(f'{key!r}: {text}' for key, text in form.items())}}}"
    texts = (format_option(value) for value in options.values())
    parts = (quoted(f"data.{key}={text}") for key, text in zip(options, texts, strict=True))
    return " ".join(f"--set {part}" for part in parts)
