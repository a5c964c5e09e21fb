"""Images that live on the device, and the splits of a dataset.

Owns: batches, and turning stored bytes into floats in [0, 1]. preparation.py makes these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import Batch
from latentforge.errors import UsageError, did_you_mean
from latentforge.seeding import generator
from latentforge.sharing import shared_generator
from latentforge.specs import DataSpec
from latentforge.streaming import Streaming, device_memory

LARGEST_BATCH = 2**25
"""Values, 128 MB of floats: 1000 images of up to 105x105 pixels in colour."""


@dataclass(frozen=True, eq=False)  # == on tensors has no single answer
class Images:
    """One split, whole, on one device; `latentforge.streamed.Streamed` is one that is not, and has
    no `x`. Both give the same batches.

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

    def taken(self, places: Tensor) -> Images:
        """The images at `places`, int64 (n,), as a split of their own."""
        y = None if self.y is None else self.y.index_select(0, places)
        return Images(self.x.index_select(0, places), y, self.spec, self.dynamic)

    def same_as(self, other: Images) -> bool:
        """Whether two splits hold the same images, as those of data without own splits do."""
        if type(other) is not Images:
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

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device."""
        y = None if self.y is None else self.y.to(device)
        return Images(self.x.to(device), y, self.spec, self.dynamic)


def at_once(spec: DataSpec, most: int) -> int:
    """How many images, of `most`, are floats in memory at once where a split is gone through."""
    return max(1, min(most, LARGEST_BATCH // spec.size))


@dataclass(frozen=True)
class DataSplits:
    """A prepared dataset: `splits` has "train", "test" and, if there is one, "validation".

    `fingerprint` is the SHA-256 of the source data and class names, whatever the cuts; of streamed
    data it is `sample`, that of a sample, which all data has.
    `preprocessing` says in JSON values how stored numbers become what the model sees.
    """

    spec: DataSpec
    splits: Mapping[str, Images]
    fingerprint: str
    preprocessing: dict[str, Any]
    sample: str = ""
    streaming: Streaming = field(default_factory=Streaming)

    def split(self, name: str) -> Images:
        """The images of one split; raises UsageError that names the splits there are."""
        if name not in self.splits:
            known = list(self.splits)
            remedy = did_you_mean(name, known) or f"choose from {', '.join(known)}"
            raise UsageError(f"no split {name!r}: there are {', '.join(known)}", remedy=remedy)
        return self.splits[name]

    def is_of(self, about: Mapping[str, Any]) -> bool:
        """Whether this is the data that a run.json describes under `data`: by all values, or by the
        sample where one of the two is streamed."""
        then = about["fingerprint"]
        if then.startswith("sample-") or self.fingerprint == self.sample:
            return bool(self.sample == about.get("sample", then))
        return bool(self.fingerprint == then)

    def to(self, device: torch.device | str) -> DataSplits:
        """All splits on another device; what several of them share is moved once. Images that are
        too many for a GPU stay in the host's memory, and are streamed from there."""
        device = torch.device(device)
        own = {id(images): images for images in self.splits.values()}
        if device.type == "cuda":
            elsewhere = {
                key: images
                for key, images in own.items()
                if type(images) is Images and images.device != device
            }
            size = sum(images.x.nbytes for images in elsewhere.values())
            if why := self.streaming.why(size, device_memory(device), "memory of the GPU"):
                from latentforge.streamed import from_memory

                for key, images in elsewhere.items():
                    own[key] = from_memory(images, self.streaming.workers, why)
        moved = {key: images.to(device) for key, images in own.items()}
        return replace(self, splits={k: moved[id(images)] for k, images in self.splits.items()})
