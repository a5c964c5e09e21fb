"""The one preparation of what a dataset gives: layout, checks, splits, fingerprint.

Knows no dataset, and does not import Ignite.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentforge.binarize import Binarize, binarized
from latentforge.contracts import Arrays
from latentforge.data import DataSplits, Images
from latentforge.errors import UsageError, one_line
from latentforge.seeding import generator
from latentforge.specs import DataSpec

if TYPE_CHECKING:
    from torch.utils.data import Dataset

SPLITS = ("train", "validation", "test")
TEST = 0.2  # of all images, where there is no official test split
VALIDATION = 0.1  # of the training images, where there is no official test split
CHANNELS = (1, 3, 4)  # what the last of four dimensions must be to count as channels
MOST_CLASSES = 65_536  # of labels without names
ROUNDING = 1e-6  # how far beyond [0, 1] a float may lie and be clamped: resizing leaves 1.0000001


@dataclass(frozen=True)
class _Source:
    """One official split after its checks; `where` names it in errors."""

    x: Tensor  # (N, C, H, W) or (N, D), uint8 or float32
    y: Tensor | None  # int64 (N,)
    classes: tuple[str, ...]
    where: str


def prepare(
    load: Callable[[str], Arrays | Dataset[Any]],
    official: Sequence[str],
    *,
    validation: float | None,
    test: float | None,
    split_seed: int,
    binarize: Binarize = "none",
    name: str,
) -> DataSplits:
    """Loads, checks and cuts the dataset `name`, whose own splits are `official`.

    An official test split is left as it is; without one, the share `test` is cut off train. Then
    `validation` is cut off what is left: None means 0 with an official test split and 0.1 without;
    None for `test` means 0.2.
    Both cuts are a pure function of `split_seed`. Raises UsageError for data that does not fit.
    """
    _check_splits(official, validation, test, name)
    sources = {split: _source(load(split), f"{name}, split {split}") for split in official}
    spec = _spec(list(sources.values()))
    splits = {split: Images(source.x, source.y, spec) for split, source in sources.items()}
    if validation is None:
        validation = 0.0 if {"test", "validation"} & set(official) else VALIDATION
    if "test" not in official:
        share = TEST if test is None else test
        splits["train"], splits["test"] = _cut(splits["train"], share, "test", split_seed, name)
    if validation:
        splits["train"], splits["validation"] = _cut(
            splits["train"], validation, "validation", split_seed, name
        )
    return _data_splits(spec, sources, splits, binarize, split_seed)


def prepare_whole(
    given: Mapping[str, Any], name: str, *, binarize: Binarize = "none", split_seed: int = 0
) -> DataSplits:
    """Each given split as it is, nothing cut off. Raises UsageError for data that does not fit."""
    sources = {split: _source(value, f"{name}, split {split}") for split, value in given.items()}
    spec = _spec(list(sources.values()))
    splits = {split: Images(source.x, source.y, spec) for split, source in sources.items()}
    return _data_splits(spec, sources, splits, binarize, split_seed)


def _data_splits(
    spec: DataSpec,
    sources: Mapping[str, _Source],
    splits: Mapping[str, Images],
    binarize: Binarize,
    seed: int,
) -> DataSplits:
    stored = next(iter(splits.values())).x.dtype
    return DataSplits(
        spec=spec,
        splits={
            split: binarized(splits[split], binarize, split, seed)
            for split in SPLITS
            if split in splits
        },
        fingerprint=_fingerprint(sources, spec.classes),
        preprocessing={**_preprocessing(spec, stored), "binarize": binarize},
    )


def _check_splits(
    official: Sequence[str], validation: float | None, test: float | None, name: str
) -> None:
    if "train" not in official or not set(official) <= set(SPLITS):
        raise UsageError(
            f"dataset {name} has the splits {', '.join(official) or '(none)'}",
            remedy=f"name them {', '.join(SPLITS)}; train must be there",
        )
    for split, share in (("validation", validation), ("test", test)):
        if share and split in official:
            raise UsageError(
                f"dataset {name} has its own {split} split",
                remedy=f"leave out data.{split}, the share to cut off ({share})",
            )


def _source(loaded: Any, where: str) -> _Source:
    arrays = loaded if isinstance(loaded, Arrays) else _gather(loaded, where)
    x = _pixels(_layout(_tensor(arrays.x, where), where), where)
    classes = tuple(_printable(str(name)) for name in arrays.classes)
    y = None if arrays.y is None else _labels(_tensor(arrays.y, where), len(x), classes, where)
    return _Source(x, y, classes, where)


def _printable(name: str) -> str:
    """Names of files may hold bytes that are no text, which no figure can show, and codes that a
    terminal obeys; escaped, they still differ."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in name
    )


def _gather(dataset: Any, where: str) -> Arrays:
    """A map-style dataset of x or (x, y), whole; x a tensor, an array or a PIL image."""
    mapped = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not mapped or isinstance(dataset, (tuple, Mapping, str)):
        raise UsageError(
            f"{where}: load gave a {type(dataset).__name__}",
            remedy="return Arrays(x=..., y=...), or a Dataset with __getitem__ and __len__",
        )
    if not len(dataset):
        raise UsageError(f"{where}: there are no examples")
    first, label = _item(dataset, 0, where)
    x = np.empty((len(dataset), *first.shape), first.dtype)
    y = None if label is None else np.empty(len(dataset), np.int64)
    for i in range(len(dataset)):
        x_i, y_i = _item(dataset, i, where)
        if (x_i.shape, x_i.dtype, y_i is None) != (first.shape, first.dtype, y is None):
            raise UsageError(
                f"{where}: example {i} is {_described(x_i, y_i)}, "
                f"example 0 is {_described(first, label)}",
                remedy="give every example the same shape and type (resize, convert)",
            )
        x[i] = x_i
        if y is not None and y_i is not None:
            y[i] = y_i
    classes = getattr(dataset, "classes", ())  # torchvision's convention
    return Arrays(x, y, classes if isinstance(classes, (list, tuple)) else ())


def _item(dataset: Any, i: int, where: str) -> tuple[np.ndarray[Any, Any], int | None]:
    try:
        item = dataset[i]
    except Exception as error:
        raise UsageError(f"{where}: example {i} cannot be read: {one_line(error)}") from error
    x, *rest = item if isinstance(item, (tuple, list)) else (item,)
    if len(rest) > 1:
        raise UsageError(f"{where}: example {i} has {1 + len(rest)} parts; it may be x or (x, y)")
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    try:
        return np.asarray(x), operator.index(rest[0]) if rest else None
    except TypeError:  # from operator.index; int() would cut 0.5 down to 0
        raise UsageError(f"{where}: the label of example {i} is {rest[0]!r}, no integer") from None


def _described(x: np.ndarray[Any, Any], y: int | None) -> str:
    return f"{x.dtype} {x.shape} {'without a label' if y is None else 'with a label'}"


def _tensor(values: Any, where: str) -> Tensor:
    """A tensor on the CPU that shares the memory of `values` where it can."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind == "f" and array.dtype != np.float32:
        array = array.astype(np.float32)
    elif array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    elif array.dtype.kind not in "fiub":
        raise UsageError(f"{where}: values of type {array.dtype} are not numbers")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _layout(x: Tensor, where: str) -> Tensor:
    """(N, H, W), (N, C, H, W) or (N, H, W, C) to (N, C, H, W); (N, D) stays."""
    if x.ndim not in (2, 3, 4):
        raise UsageError(
            f"{where}: x has shape {tuple(x.shape)}",
            remedy="give (N, H, W), (N, C, H, W) or (N, D)",
        )
    if not x.numel():
        raise UsageError(f"{where}: there are no examples, x has shape {tuple(x.shape)}")
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.ndim == 4 and x.shape[1] not in CHANNELS and x.shape[3] in CHANNELS:
        x = x.permute(0, 3, 1, 2)
    return x.contiguous()


def _pixels(x: Tensor, where: str) -> Tensor:
    """uint8 as it is; floats as float32 once they are known to lie in [0, 1]."""
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise UsageError(
            f"{where}: x is {_dtype(x)}",
            remedy="give uint8 from 0 to 255, or floats from 0 to 1",
        )
    x = x.to(torch.float32)
    low, high = (float(v) for v in x.aminmax())  # nan if there is one
    if low >= 0.0 and high <= 1.0:
        return x
    if bad := x.numel() - int(x.isfinite().sum()):
        raise UsageError(
            f"{where}: {bad} of {x.numel()} values of x are NaN or infinite",
            remedy="remove or replace them in the dataset's load",
        )
    if low < -ROUNDING or high > 1.0 + ROUNDING:
        raise UsageError(
            f"{where}: x lies in [{low:g}, {high:g}], and floats must lie in [0, 1]",
            remedy=scaling(low, high),
        )
    return x.clamp(0.0, 1.0)


def scaling(low: float, high: float) -> str:
    """What to give in place of floats in [low, high]."""
    if low >= 0.0 and 2.0 <= high <= 255.0:
        return "divide by 255, or give uint8"
    if low >= -1.0 - ROUNDING and high <= 1.0 + ROUNDING:
        return "give (x + 1) / 2"
    return f"give (x - {low:g}) / {high - low:g}"


def _labels(y: Tensor, count: int, classes: Sequence[str], where: str) -> Tensor:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UsageError(f"{where}: y is {_dtype(y)}, and labels must be integers")
    if y.shape != (count,):
        raise UsageError(f"{where}: y has shape {tuple(y.shape)}, and x has {count} examples")
    y = y.to(torch.int64).contiguous()
    low, high = (int(v) for v in y.aminmax())
    if low < 0 or (classes and high >= len(classes)):
        most = f"to {len(classes) - 1} for the {len(classes)} classes" if classes else "upwards"
        raise UsageError(f"{where}: labels go from {low} to {high}; they must go from 0 {most}")
    if not classes and high >= MOST_CLASSES:  # each number up to the highest gets a name
        raise UsageError(
            f"{where}: labels go up to {high}, and {MOST_CLASSES} classes are the most",
            remedy="number the classes from 0: torch.unique(y, return_inverse=True)[1]",
        )
    return y


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _spec(sources: Sequence[_Source]) -> DataSpec:
    """What all splits share; raises UsageError where they differ."""
    first = sources[0]
    for other in sources[1:]:
        seen = (
            ("shape", tuple(first.x.shape[1:]), tuple(other.x.shape[1:])),
            ("type", _dtype(first.x), _dtype(other.x)),
            ("labels", *("no" if s.y is None else "some" for s in (first, other))),
            ("classes", first.classes, other.classes),
        )
        for what, one, two in seen:
            if one != two:
                raise UsageError(f"{other.where}: {what} {two}, but {first.where}: {what} {one}")
    classes: tuple[str, ...] = ()
    labels = [source.y for source in sources if source.y is not None]
    if labels:
        classes = first.classes or tuple(map(str, range(1 + max(int(y.max()) for y in labels))))
    kind: Literal["image", "vector"] = "image" if first.x.ndim == 4 else "vector"
    return DataSpec(shape=tuple(first.x.shape[1:]), kind=kind, classes=classes)


def _cut(images: Images, share: float, purpose: str, seed: int, name: str) -> tuple[Images, Images]:
    """What is left, and the part cut off, both in the order of the source."""
    if not 0.0 <= share < 1.0:
        raise UsageError(f"the {purpose} share is {share}; it must lie from 0 to below 1")
    n = len(images)
    count = round(n * share)
    if not 0 < count < n:
        raise UsageError(
            f"dataset {name}: a {purpose} share of {share} of {n} images is {count}, "
            f"and leaves {n - count} for training: neither may be empty",
            remedy=f"choose another {purpose} share",
        )
    order = torch.randperm(n, generator=generator("cpu", f"split {purpose}", seed))
    return _taken(images, order[count:]), _taken(images, order[:count])


def _taken(images: Images, places: Tensor) -> Images:
    places = places.sort().values
    y = None if images.y is None else images.y.index_select(0, places)
    return Images(images.x.index_select(0, places), y, images.spec)


def _fingerprint(sources: Mapping[str, _Source], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for split in sorted(sources):
        for key, values in (("x", sources[split].x), ("y", sources[split].y)):
            if values is None:
                continue
            digest.update(f"{split} {key} {_dtype(values)} {tuple(values.shape)}".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()


def _preprocessing(spec: DataSpec, stored: torch.dtype) -> dict[str, Any]:
    return {
        "shape": list(spec.shape),
        "kind": spec.kind,
        "stored": str(stored).removeprefix("torch."),
        "divide_by": 255 if stored == torch.uint8 else 1,
        "range": list(spec.range),
    }
