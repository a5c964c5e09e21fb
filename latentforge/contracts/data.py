"""The data of a run, as components see it: DataSpec, Arrays, Batch and Images."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, cast

from latentforge.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


CLASS = "class"
"""The name of the factor that consists of the labels."""

WORD_START, WORD_END = r"(?<![\w/\\.-])", r"(?![\w/\\-]|\.\w)"
"""The ends of a word of a sentence, which is not a part of a path or of a name."""


Kind = Literal["image", "vector", "signal"]


@dataclass(frozen=True)
class Factor:
    """A known property of each example. Categorical: `names[i]` is the name of value i, as int64.
    Numeric, float32, if there are no names."""

    name: str
    names: tuple[str, ...] = ()


class MissingFactorError(UsageError, KeyError):
    """A component reads a factor that the data does not have. A mapping raises KeyError for an
    unknown key, so `in` and `get` work."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = [*known]
        super().__init__(
            f"the data has no factor {name!r}; its factors: {', '.join(known) or 'none'}",
            hint=did_you_mean(name, known) or "give data with this factor",
        )


class FactorTable(dict[str, "Tensor"]):
    """The factors of a split by name, (N,) each. Raises MissingFactorError for another name."""

    def __missing__(self, name: str) -> NoReturn:
        raise MissingFactorError(name, self)


RangeName = Literal["unit", "signed", "counts", "any"]

RANGES: Mapping[str, tuple[float, float] | None] = MappingProxyType(
    {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "counts": (0.0, math.inf), "any": None}
)
"""The ranges of data by name, as in `data.range`. Counts are whole numbers; None is any real
number."""


@dataclass(frozen=True)
class Scaling:
    """How data.normalize standardizes values: (x - mean) / deviation, with one number of each for
    each channel of images and signals, or for each value of vectors."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def as_dict(self) -> dict[str, list[float]]:
        """The numbers as JSON values."""
        return {"mean": [*self.mean], "deviation": [*self.deviation]}

    def tensors(self, x: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
        """`mean` and `deviation`, which broadcast with examples x of `ndim` axes each."""
        shape = (-1, *[1] * (ndim - 1))
        return x.new_tensor(self.mean).reshape(shape), x.new_tensor(self.deviation).reshape(shape)


@dataclass(frozen=True)
class DataSpec:
    """The data that a model is built for. `shape` is that of one example: (C, H, W) of an image,
    (D,) of a vector, (C, L) of a signal, which has C channels of L values in order.
    `classes[i]` is the name of label i. All values are in `range`, one of RANGES. `limits` are the
    smallest and the largest value of a sample of the training split, if `range` has no bounds.
    `factors` are the known properties of the examples; the first one is "class" if there are
    labels. With `scaling`, models see standardized values: `restore` returns them to the units of
    the data, in which `limits` are."""

    shape: tuple[int, ...]
    kind: Kind = "image"
    classes: tuple[str, ...] = ()
    range: tuple[float, float] | None = (0.0, 1.0)
    factors: tuple[Factor, ...] = ()
    limits: tuple[float, float] | None = None
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        labels = (Factor(CLASS, self.classes),) if self.classes else ()
        others = (factor for factor in self.factors if factor.name != CLASS)
        object.__setattr__(self, "factors", (*labels, *others))

    @property
    def range_name(self) -> RangeName:
        """The name of `range` in RANGES. Raises ValueError for another range."""
        for name, bounds in RANGES.items():
            if bounds == self.range:
                return cast(RangeName, name)
        raise ValueError(f"range must be one of {[*RANGES.values()]}, not {self.range}")

    @property
    def extent(self) -> tuple[float, float]:
        """The values that are drawn black and white, in the units of the data: the bounds of
        `range`, or `limits`."""
        if self.range in (RANGES["unit"], RANGES["signed"]):
            return cast(tuple[float, float], self.range)
        low, high = self.limits or (0.0, 1.0)
        return (low, high) if low < high else (low, low + 1.0)

    def describe_values(self) -> str:
        """Describe the values for the protocol of a metric, as in "values in [0, 1]"."""
        texts = {"unit": "values in [0, 1]", "signed": "values in [-1, 1]", "counts": "counts"}
        if self.scaling:
            return "standardized values"
        return texts.get(self.range_name, "values")

    def adapt(self, text: str) -> str:
        """Return a text about images and pixels in the words of this data: examples, or signals,
        and values. Names such as image.csv, image-run and runs/image are not changed."""
        if self.kind == "image":
            return text
        word, article = ("signal", "a") if self.kind == "signal" else ("example", "an")
        text = re.sub(rf"\ban image{WORD_END}", f"{article} {word}", text)
        text = re.sub(rf"{WORD_START}image(s?){WORD_END}", rf"{word}\1", text)
        text = re.sub(rf"{WORD_START}Image(s?){WORD_END}", rf"{word.capitalize()}\1", text)
        return re.sub(rf"{WORD_START}pixel(s?){WORD_END}", r"value\1", text)

    def normalize(self, x: Tensor) -> Tensor:
        """Return examples (..., *shape) as models see them: standardized, if there is a
        `scaling`."""
        if self.scaling is None:
            return x
        mean, deviation = self.scaling.tensors(x, len(self.shape))
        return (x - mean) / deviation

    def restore(self, x: Tensor) -> Tensor:
        """Return examples (..., *shape) in the units of the data: the inverse of `normalize`."""
        if self.scaling is None:
            return x
        mean, deviation = self.scaling.tensors(x, len(self.shape))
        return x * deviation + mean

    def to_unit(self, x: Tensor) -> Tensor:
        """Scale values of examples for drawing: `extent` becomes [0, 1]. Data in [0, 1] is returned
        as it is."""
        low, high = self.extent
        x = self.restore(x)
        return x if (low, high) == (0.0, 1.0) else (x - low) / (high - low)

    def from_unit(self, x: Tensor) -> Tensor:
        """Return values of the data for values in [0, 1]: the inverse of `to_unit`, except that
        counts are rounded."""
        low, high = self.extent
        x = x if (low, high) == (0.0, 1.0) else low + (high - low) * x
        return self.normalize(x.round() if self.range == RANGES["counts"] else x)

    @property
    def size(self) -> int:
        """The number of values in one example: C*H*W, D or C*L."""
        return math.prod(self.shape)

    @property
    def drawable(self) -> bool:
        """Whether an example can be drawn as a picture: an image that is grey or RGB."""
        return self.kind == "image" and self.shape[0] in (1, 3)

    @property
    def drawn_as_curves(self) -> bool:
        """Whether an example is drawn as curves: a signal, or a vector of at least two values."""
        return self.kind != "image" and self.shape[-1] > 1


LARGEST_BATCH = 2**25
"""The maximum number of values in a batch, 128 MB of float32: 1000 RGB images of 105x105 pixels."""


def at_once(spec: DataSpec, most: int) -> int:
    """The batch size for a pass over a split: at most `most` images and LARGEST_BATCH values."""
    return max(1, min(most, LARGEST_BATCH // spec.size))


@dataclass(frozen=True)
class Arrays:
    """One split of a dataset. `x`: (N, H, W), (N, C, H, W) or (N, D), uint8 or float in [0, 1];
    data.layout, data.black and data.white describe others. With `kind` "signal", (N, L) or
    (N, C, L). `y`: (N,) integers that index `classes`,
    names of classes, or None. `files`: of each example. `where` names the data in errors.
    `factors`: by name, numbers (N,), which are numeric, or a categorical factor: strings (N,), or a
    pair of integers (N,) and the names that they index. `range` is that of the values, unless the
    user sets data.range."""

    x: np.ndarray[Any, Any] | Tensor
    y: np.ndarray[Any, Any] | Tensor | None = None
    classes: Sequence[str] = ()
    files: Sequence[str] | None = None
    where: str = ""
    factors: Mapping[str, Any] | None = None
    range: RangeName | None = None
    kind: Literal["signal"] | None = None


@dataclass(slots=True)  # not frozen: one is created per step, and freezing costs 1 µs
class Batch:
    """The input of a step. `x`: float32 (B, *data.shape), in data.range. `y`: int64 (B,) or None.
    `index`: int64 (B,), the position of each example in its split, which is `images`."""

    x: Tensor
    y: Tensor | None
    index: Tensor
    images: Images | None = None

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """The factors by name, (B,) each: int64 if categorical, float32 if numeric. "class" is `y`.
        Each is selected when it is read, so factors that are not read cost nothing."""
        return BatchFactors(self)

    def select(self, part: slice | Tensor) -> Batch:
        """The examples of a slice or at positions in the batch, int64 (n,)."""
        y = None if self.y is None else self.y[part]
        return Batch(self.x[part], y, self.index[part], self.images)


class BatchFactors(Mapping[str, "Tensor"]):
    """The factors of a batch by name, each selected from the split when it is read."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.table = {} if batch.images is None else batch.images.factors  # (N,) each

    def __getitem__(self, name: str) -> Tensor:
        if name == CLASS and self.batch.y is not None:
            return self.batch.y
        if name not in self.table:
            raise MissingFactorError(name, self)
        return self.table[name].index_select(0, self.batch.index)

    def __iter__(self) -> Iterator[str]:
        labels = {} if self.batch.y is None else {CLASS: None}
        return iter({**labels, **self.table})

    def __len__(self) -> int:
        return sum(1 for _ in self)  # a list of self would ask for its length


class Images(Protocol):
    """One preprocessed split of a run's data, in memory or streamed from disk. `x`: all images,
    (N, *spec.shape), uint8, or float32 in spec.range; reading it raises UsageError if they are
    streamed. `y`: int64 (N,) indices into `spec.classes`, or None. `factors`: by name, (N,) each,
    int64 if categorical, else float32; "class" is `y`. `dynamic`: binarized in each batch."""

    @property
    def spec(self) -> DataSpec: ...
    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor | None: ...
    @property
    def factors(self) -> Mapping[str, Tensor]: ...
    @property
    def dynamic(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def stored(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def raw(self, index: Tensor) -> Tensor:
        """The images at `index` in their stored dtype, (B, *spec.shape), uint8 or float32."""

    def same_as(self, other: Any) -> bool:
        """Whether both splits contain the same images."""

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, int64 (B,) on `device`."""

    def batch_at(self, places: Sequence[int]) -> Batch:
        """The examples at these positions. Raises UsageError if a position does not exist."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all examples once, in order, in batches of `size`; the last one may be smaller."""

    def of_class(self, label: int) -> Tensor:
        """The positions of the examples of one class, int64 (n,), in order."""
