"""Images that live on the device, and the splits of a dataset.

Owns: batches, and turning stored bytes into floats in [0, 1]. preparation.py makes these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from latentforge.contracts import Batch, DataSpec
from latentforge.errors import UsageError
from latentforge.seeding import generator, shared_generator

Binarize = Literal["none", "threshold", "fixed", "dynamic"]
CHUNK = 10_000  # images turned into floats at once, to be binarized


@dataclass(frozen=True, eq=False)  # == on tensors has no single answer
class ImageSplit:
    """One split, whole, on one device; `StreamedImages` reads from disk and has no `x`. Both give
    the same batches.

    `x`: (N, *spec.shape), uint8 or float32 in [0, 1]. `y`: int64 (N,) that indexes `spec.classes`,
    or None. `dynamic`: each batch is drawn black and white with the grey values as probabilities,
    by `batch` from the default generator, which is a function of the step.
    """

    x: Tensor
    y: Tensor | None
    spec: DataSpec
    dynamic: bool = False
    _white: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A 0-d tensor: 1 µs a batch faster than dividing by the number 255 on the CPU. It lies on
        # the device because CUDA turns a number into a product with 1/255, one ulp off the CPU's.
        white = torch.tensor(255.0, dtype=torch.float32, device=self.x.device)
        object.__setattr__(self, "_white", white)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def stored(self) -> torch.dtype:
        """The type in which the images are stored, uint8 or float32."""
        return self.x.dtype

    def raw(self, index: Tensor) -> Tensor:
        """The images at `index` as they are stored, (B, *spec.shape)."""
        return torch.index_select(self.x, 0, index)

    def taken(self, places: Tensor) -> ImageSplit:
        """The images at `places`, int64 (n,), as a split of their own."""
        y = None if self.y is None else self.y.index_select(0, places)
        return ImageSplit(self.x.index_select(0, places), y, self.spec, self.dynamic)

    def same_as(self, other: ImageSplit) -> bool:
        """Whether two splits hold the same images, as those of data without own splits do."""
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
        return Batch(x, y, index)

    def batch_at(self, places: Sequence[int]) -> Batch:
        """The examples at these places; raises UsageError for a place that is not there."""
        if outside := [place for place in places if not 0 <= place < len(self)]:
            raise UsageError(
                f"no image {', '.join(map(str, outside[:5]))}: this split has {len(self)}",
                remedy=f"choose from 0 to {len(self) - 1}",
            )
        return self.batch(torch.tensor(places, dtype=torch.int64, device=self.device))

    def batches(self, size: int) -> Iterator[Batch]:
        """Every example once, in order, `size` at a time; the last batch may be shorter."""
        index = torch.arange(len(self), device=self.device)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            x = self.x[part]
            # the clone keeps a model that works in place from changing the data itself
            x = torch.div(x, self._white) if x.dtype == torch.uint8 else x.clone()
            if self.dynamic:  # the same at every pass, so that figures can be compared
                x = torch.bernoulli(x, generator=generator(self.device, "binarize", start))
            yield Batch(x, None if self.y is None else self.y[part], index[part])

    def of_class(self, label: int) -> Tensor:
        """The places of the examples of one class, int64 (n,), in order."""
        if self.y is None:
            raise UsageError("this data has no labels, so no image can be chosen by its class")
        if not 0 <= label < len(self.spec.classes):
            raise UsageError(
                f"no class {label}: there are {len(self.spec.classes)}",
                remedy=f"choose from 0 to {len(self.spec.classes) - 1}",
            )
        return (self.y == label).nonzero().squeeze(1)

    def binarized(self, mode: Binarize, split: str, seed: int) -> ImageSplit:
        """The images with every value 0 or 1, stored as uint8 0 or 255, as `data.binarize` asks.

        `threshold`: 1 from 0.5 upwards. `fixed`: each value drawn once with its grey value as the
        probability, a function of `seed` and the split (Salakhutdinov and Murray 2008). `dynamic`:
        the training images are drawn anew whenever they are shown; other splits are `fixed`.
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
        """The same images on another device."""
        y = None if self.y is None else self.y.to(device)
        return ImageSplit(self.x.to(device), y, self.spec, self.dynamic)
