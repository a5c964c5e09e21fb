"""ImageSplit: the images of one split in memory, and its batches.

Converts stored bytes to floats in [0, 1]; values of other ranges are stored as floats.
preparation.py creates the splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentforge.contracts import Batch, DataSpec
from latentforge.contracts.data import CLASS, FactorTable
from latentforge.errors import UsageError
from latentforge.seeding import generator, shared_generator

Binarize = Literal["none", "threshold", "fixed", "dynamic"]
CHUNK = 10_000  # images that are converted to floats at once for binarization


@dataclass(frozen=True, eq=False)  # == on tensors has no single answer
class ImageSplit:
    """One complete split on one device. `StreamedImages` reads on demand and has no `x`; both give
    the same batches.

    `x`: (N, *spec.shape), uint8, or float32 in spec.range. `y`: int64 (N,), which indexes
    `spec.classes`, or None. `dynamic`: `batch` samples each value as 0 or 1, with its grey value as
    the probability, from the default generator, which is seeded for each step. `origin`: int64 (N,)
    on the CPU, the position of each image in the official split that contains it, None for 0 to
    N - 1. `files`: the names of the files of that official split, if the images come from files.
    `table`: the factors other than the class, int64 or float32 (N,) each, on the device of `x`.
    """

    x: Tensor
    y: Tensor | None
    spec: DataSpec
    dynamic: bool = False
    origin: Tensor | None = None
    files: Sequence[str] | None = None
    table: Mapping[str, Tensor] = field(default_factory=dict)
    _white: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Division by a 0-d tensor is 1 µs per batch faster on the CPU than by the number 255. The
        # tensor is on the device because CUDA multiplies by 1/255 if it is given a number, which is
        # one ulp off the CPU's result.
        white = torch.tensor(255.0, dtype=torch.float32, device=self.x.device)
        object.__setattr__(self, "_white", white)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def stored(self) -> torch.dtype:
        """The dtype of the stored images, uint8 or float32."""
        return self.x.dtype

    @property
    def factors(self) -> FactorTable:
        """The factors by name, (N,) each; "class" is `y`."""
        return FactorTable({**({} if self.y is None else {CLASS: self.y}), **self.table})

    def raw(self, index: Tensor) -> Tensor:
        """The stored images at `index`, (B, *spec.shape)."""
        return torch.index_select(self.x, 0, index)

    def select(self, indices: Tensor) -> ImageSplit:
        """Return a new split with the images at `indices`, int64 (n,)."""
        y = None if self.y is None else self.y.index_select(0, indices)
        origin = self.origins().index_select(0, indices.cpu())
        table = {name: values.index_select(0, indices) for name, values in self.table.items()}
        return replace(self, x=self.x.index_select(0, indices), y=y, origin=origin, table=table)

    def origins(self) -> Tensor:
        """The position of each image in the official split that contains it, int64 (N,)."""
        return torch.arange(len(self)) if self.origin is None else self.origin

    def locate(self, index: Tensor) -> dict[str, Any]:
        """Where the images at `index`, int64 (B,), come from, for NamedArrays: `index`, `source`
        (their origins) and, if the images come from files, `file`, an array of names."""
        source = self.origins()[index.cpu()]
        found: dict[str, Any] = {"index": index, "source": source}
        if self.files is not None:
            found["file"] = np.array([self.files[i] for i in source.tolist()])
        return found

    def relabelled(self, y: Tensor | None, spec: DataSpec) -> ImageSplit:
        """Return the images with another spec and other labels, which index its classes."""
        return replace(self, y=y, spec=spec)

    def with_table(self, table: Mapping[str, Tensor], spec: DataSpec) -> ImageSplit:
        """Return the images with other values of factors, which `spec` describes."""
        return replace(self, table=table, spec=spec)

    def same_as(self, other: ImageSplit) -> bool:
        """Whether two splits contain the same images."""
        if type(other) is not ImageSplit:
            return other is self
        return self.x is other.x or (self.x.shape == other.x.shape and torch.equal(self.x, other.x))

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, int64 (B,) on the same device."""
        x = torch.index_select(self.x, 0, index)  # x[index] takes twice the time for uint8
        if x.dtype == torch.uint8:
            x = torch.div(x, self._white)
        if self.dynamic:
            x = torch.bernoulli(x, generator=shared_generator())
        y = None if self.y is None else torch.index_select(self.y, 0, index)
        return Batch(x, y, index, self)

    def batch_at(self, places: Sequence[int]) -> Batch:
        """Return the examples at these indices. Raises UsageError if an index does not exist."""
        if missing := [index for index in places if not 0 <= index < len(self)]:
            raise UsageError(
                f"no image {', '.join(map(str, missing[:5]))}: this split has {len(self)}",
                hint=f"choose from 0 to {len(self) - 1}",
            )
        return self.batch(torch.tensor(places, dtype=torch.int64, device=self.device))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield every example once, in order, `size` at a time; the last batch may be shorter."""
        index = torch.arange(len(self), device=self.device)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            x = self.x[part]
            # the clone protects the data from a model that works in place
            x = torch.div(x, self._white) if x.dtype == torch.uint8 else x.clone()
            if self.dynamic:  # the same in every pass, so that metrics are comparable
                x = torch.bernoulli(x, generator=generator(self.device, "binarize", start))
            yield Batch(x, None if self.y is None else self.y[part], index[part], self)

    def of_class(self, label: int) -> Tensor:
        """The indices of the examples of one class, int64 (n,), in order."""
        if self.y is None:
            raise UsageError("this data has no labels, so no image can be chosen by its class")
        if not 0 <= label < len(self.spec.classes):
            raise UsageError(
                f"no class {label}: there are {len(self.spec.classes)}",
                hint=f"choose from 0 to {len(self.spec.classes) - 1}",
            )
        return (self.y == label).nonzero().squeeze(1)

    def binarized(self, mode: Binarize, split: str, seed: int) -> ImageSplit:
        """Return the images with every value 0 or 1, stored as uint8 0 or 255. `mode` is
        `data.binarize`.

        `threshold`: 1 if a value is at least 0.5. `fixed`: each value is sampled once with its grey
        value as the probability, as a function of `seed` and the split (Salakhutdinov and Murray
        2008). `dynamic`: the training images are sampled again each time they are used; other
        splits are `fixed`.
        """
        if mode == "none":
            return self
        if mode == "dynamic" and split == "train":
            return replace(self, dynamic=True)
        noise = generator("cpu", f"binarize {split}", seed)

        def white(x: Tensor) -> Tensor:
            return x >= 0.5 if mode == "threshold" else torch.bernoulli(x, generator=noise).bool()

        parts = [white(batch.x).to(torch.uint8) * 255 for batch in self.batches(CHUNK)]
        return replace(self, x=torch.cat(parts))

    def to(self, device: torch.device | str) -> ImageSplit:
        """Copy the images to another device."""
        y = None if self.y is None else self.y.to(device)
        table = {name: values.to(device) for name, values in self.table.items()}
        return replace(self, x=self.x.to(device), y=y, table=table)
