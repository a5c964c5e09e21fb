"""StreamedImages: a split that is not in memory, with the same batches as one that is.

readers.py reads, prefetch.py reads ahead, memory.py decides when to stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from latentforge.contracts import Batch, DataSpec
from latentforge.data.images import Binarize, ImageSplit
from latentforge.data.prefetch import Ahead, checked
from latentforge.data.readers import InMemory, Reader, Source
from latentforge.errors import UsageError
from latentforge.seeding import generator, shared_generator


class StreamedImages(ImageSplit):
    """One split whose images are read from `source` batch by batch. Labels are on the device.

    `places`: int64 (N,), the indices of these images in the source, in order. `why` is the reason
    why they are streamed. `workers` processes prefetch; 0 reads in this process. `binarize` is
    applied to each batch: "fixed" draws each image from (`draw`, its index), so it is always the
    same.
    """

    def __init__(
        self,
        source: Source,
        y: Tensor | None,
        spec: DataSpec,
        *,
        places: Tensor | None = None,
        binarize: Binarize = "none",
        draw: tuple[str, int] = ("", 0),
        device: torch.device | str = "cpu",
        workers: int = 0,
        why: str = "",
    ) -> None:
        device = torch.device(device)
        vars(self).update(  # a frozen class, like ImageSplit
            source=source,
            places=torch.arange(len(source)) if places is None else places,
            y=y,
            spec=spec,
            dynamic=binarize == "dynamic",
            binarize=binarize,
            draw=draw,
            workers=workers,
            why=why,
            _device=device,
            _white=torch.tensor(255.0, device=device),
            _reader=Reader(source),
            _state=_State(),
        )

    source: Source
    places: Tensor
    binarize: Binarize
    draw: tuple[str, int]
    workers: int
    why: str
    _device: torch.device
    _reader: Reader
    _state: _State

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"StreamedImages({self.source.where}, {len(self)} images)"

    @property
    def x(self) -> NoReturn:
        """Raises UsageError, because there is no tensor of all images."""
        raise UsageError(
            f"{self.source.where}: the images are streamed and not in memory as a whole",
            remedy="iterate over images.batches(size), or call images.batch(places); "
            "with enough memory, --set data.stream=never",
        )

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def stored(self) -> torch.dtype:
        return self.source.dtype

    def raw(self, index: Tensor) -> Tensor:
        return checked(self._reader[self.places[index.cpu()].tolist()]).to(self.device)

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Announce the arguments of the next calls of `batch`, in order. They are prefetched from
        the first call that is made. Other calls may be made in between."""
        self.close()
        self._state.expected = [index.cpu() for index in batches]

    def residence(self) -> str:
        """Where the images are read from, for run.json and for messages."""
        return f"streamed ({self.why}; data.workers={self.workers})"

    def close(self) -> None:
        """Stop prefetching and end the workers."""
        if self._state.ahead:
            self._state.ahead.close()
        self._state.ahead, self._state.expected = None, []

    def batch(self, index: Tensor) -> Batch:
        places = index.cpu()
        x = self._next(places)
        x = self.raw(places) if x is None else x
        x = self._seen(x, places)
        if self.dynamic:
            x = torch.bernoulli(x, generator=shared_generator())
        index = index.to(self.device)
        y = None if self.y is None else torch.index_select(self.y, 0, index)
        return Batch(x, y, index)

    def batches(self, size: int) -> Iterator[Batch]:
        parts = torch.split(torch.arange(len(self)), size)
        ahead = Ahead(self._reader, self._sources(parts), self.workers, self.device)
        try:
            for part in parts:
                x = self._seen(ahead.next(), part)
                if self.dynamic:
                    noise = generator(self.device, "binarize", int(part[0]))
                    x = torch.bernoulli(x, generator=noise)
                index = part.to(self.device)
                yield Batch(x, None if self.y is None else self.y[index], index)
        finally:
            ahead.close()

    def taken(self, places: Tensor) -> StreamedImages:
        y = None if self.y is None else self.y.index_select(0, places.to(self.device))
        return self._with(y=y, places=self.places.index_select(0, places))

    def binarized(self, mode: Binarize, split: str, seed: int) -> StreamedImages:
        """Like `ImageSplit.binarized`. Raises UsageError for "fixed", because a single draw of all
        images cannot be stored. With "dynamic", splits other than train draw each image by its
        index."""
        if mode == "fixed":
            raise UsageError(
                "data.binarize=fixed draws all images once, but streamed images are not stored",
                remedy="--set data.binarize=dynamic or threshold, or data.stream=never",
            )
        held = mode == "dynamic" and split != "train"
        return self._with(binarize="fixed" if held else mode, draw=(split, seed))

    def to(self, device: torch.device | str) -> StreamedImages:
        y = None if self.y is None else self.y.to(device)
        return self._with(y=y, device=torch.device(device))

    def same_as(self, other: ImageSplit) -> bool:
        if not isinstance(other, StreamedImages):
            return False
        return self.source is other.source and torch.equal(self.places, other.places)

    def _with(self, **changes: object) -> StreamedImages:
        keep = ("places", "binarize", "draw", "device", "workers", "why")
        options = {"y": self.y, **{name: getattr(self, name) for name in keep}, **changes}
        return StreamedImages(self.source, spec=self.spec, **options)

    def _sources(self, parts: Sequence[Tensor]) -> list[list[int]]:
        return [self.places[part].tolist() for part in parts]

    def _next(self, places: Tensor) -> Tensor | None:
        """The prefetched batch, if it is the one at `places`, else None."""
        state = self._state
        if state.ahead is None:  # the start of an epoch, or its middle after a resume
            found = (i for i, e in enumerate(state.expected) if torch.equal(e, places))
            if (first := next(found, None)) is None:
                return None
            state.expected = state.expected[first:]
            sources = self._sources(state.expected)
            state.ahead = Ahead(self._reader, sources, self.workers, self.device)
        if not state.expected or not torch.equal(state.expected[0], places):
            return None
        state.expected.pop(0)
        return state.ahead.next()

    def _seen(self, x: Tensor, places: Tensor) -> Tensor:
        """What the model receives for stored images on the device, except for `dynamic`."""
        if x.dtype == torch.uint8:
            x = torch.div(x, self._white)
        if self.binarize == "threshold":
            return (x >= 0.5).to(x.dtype)
        if self.binarize == "fixed":
            split, seed = self.draw
            purpose = f"binarize {split}, one image"
            rows = [
                torch.bernoulli(row, generator=generator("cpu", purpose, seed, place))
                for row, place in zip(x.cpu(), places.tolist(), strict=True)
            ]
            return torch.stack(rows).to(x.device) if rows else x
        return x


@dataclass
class _State:
    """The state of the prefetch, which changes while the images are frozen."""

    expected: list[Tensor] = field(default_factory=list)
    ahead: Ahead | None = None


def from_memory(images: ImageSplit, workers: int, why: str) -> StreamedImages:
    """Images in the host's memory as a split that is streamed to a device from there."""
    mode: Binarize = "dynamic" if images.dynamic else "none"
    source = InMemory(images.x, "the images in memory")
    return StreamedImages(source, images.y, images.spec, binarize=mode, workers=workers, why=why)
