"""StreamedImages: a split that is read on demand and has the same batches as one in memory.

readers.py reads images, prefetch.py reads batches ahead, memory.py decides when to stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Any, NoReturn

import torch
from torch import Tensor

from latentforge.contracts import Batch, DataSpec
from latentforge.data.images import Binarize, ImageSplit
from latentforge.data.prefetch import Prefetcher, unwrap
from latentforge.data.readers import InMemory, Reader, Source
from latentforge.errors import UsageError
from latentforge.seeding import generator, shared_generator


class StreamedImages(ImageSplit):
    """One split whose images are read from `source` batch by batch. Labels are on the device.

    `indices`: int64 (N,), the indices of these images in the source, in order. `reason` states why
    they are streamed. `workers` processes prefetch; if it is 0, this process reads. `binarize` is
    applied to each batch. For "fixed", (`draw`, index) is the seed of each image, so the result is
    always the same. `origin` and `files` are those of the source, as in ImageSplit, but `table` is
    that of these images.
    """

    def __init__(
        self,
        source: Source,
        y: Tensor | None,
        spec: DataSpec,
        *,
        indices: Tensor | None = None,
        origin: Tensor | None = None,
        files: Sequence[str] | None = None,
        table: Mapping[str, Tensor] | None = None,
        binarize: Binarize = "none",
        draw: tuple[str, int] = ("", 0),
        device: torch.device | str = "cpu",
        workers: int = 0,
        reason: str = "",
    ) -> None:
        vars(self).update(  # a frozen class, like ImageSplit
            source=source,
            indices=torch.arange(len(source)) if indices is None else indices,
            origin=origin,
            files=files,
            table={} if table is None else table,
            y=y,
            spec=spec,
            dynamic=binarize == "dynamic",
            binarize=binarize,
            draw=draw,
            workers=workers,
            reason=reason,
            _device=torch.device(device),
            _white=torch.tensor(255.0, device=device),
            _state=_State(),
        )

    source: Source
    indices: Tensor
    binarize: Binarize
    draw: tuple[str, int]
    workers: int
    reason: str
    _device: torch.device
    _state: _State

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"StreamedImages({self.source.where}, {len(self)} images)"

    @property
    def x(self) -> NoReturn:
        """Raises UsageError, because there is no tensor of all images."""
        raise UsageError(
            f"{self.source.where}: the images are streamed and not in memory as a whole",
            hint="iterate over images.batches(size), or call images.batch(places); "
            "with enough memory, --set data.stream=never",
        )

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def stored(self) -> torch.dtype:
        return self.source.dtype

    def raw(self, index: Tensor) -> Tensor:
        return unwrap(Reader(self.source)[self.indices[index.cpu()].tolist()]).to(self.device)

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Announce the arguments of the next calls of `batch`, in order. Prefetching starts with
        the first of these calls. Calls with other arguments may be made in between."""
        self.close()
        self._state.expected = [index.cpu() for index in batches]

    def describe_source(self) -> str:
        """Describe how and why the images are streamed, for run.json and for messages."""
        return f"streamed ({self.reason}; data.workers={self.workers})"

    def close(self) -> None:
        """Stop prefetching and end the workers."""
        if self._state.prefetcher:
            self._state.prefetcher.close()
        self._state.prefetcher, self._state.expected = None, []

    def batch(self, index: Tensor) -> Batch:
        positions = index.cpu()
        x = self._next_prefetched(positions)
        x = self.raw(positions) if x is None else x
        x = self._preprocess(x, positions)
        if self.dynamic:
            x = torch.bernoulli(x, generator=shared_generator())
        index = index.to(self.device)
        y = None if self.y is None else torch.index_select(self.y, 0, index)
        return Batch(x, y, index, self)

    def batches(self, size: int) -> Iterator[Batch]:
        parts = torch.split(torch.arange(len(self)), size)
        prefetcher = self._prefetch(parts)
        try:
            for part in parts:
                x = self._preprocess(prefetcher.next(), part)
                if self.dynamic:
                    noise = generator(self.device, "binarize", int(part[0]))
                    x = torch.bernoulli(x, generator=noise)
                index = part.to(self.device)
                yield Batch(x, None if self.y is None else self.y[index], index, self)
        finally:
            prefetcher.close()

    def origins(self) -> Tensor:
        return self.indices if self.origin is None else self.origin[self.indices]

    def select(self, indices: Tensor) -> StreamedImages:
        rows = indices.to(self.device)
        y = None if self.y is None else self.y.index_select(0, rows)
        table = {name: values.index_select(0, rows) for name, values in self.table.items()}
        return self._replace(y=y, table=table, indices=self.indices.index_select(0, indices.cpu()))

    def binarized(self, mode: Binarize, split: str, seed: int) -> StreamedImages:
        """Like `ImageSplit.binarized`. Raises UsageError for "fixed", because the binarized images
        cannot be stored. With "dynamic", in splits other than train, the seed of each image is a
        function of its index."""
        if mode == "fixed":
            raise UsageError(
                "data.binarize=fixed samples all images once, but streamed images are not stored",
                hint="--set data.binarize=dynamic, --set data.binarize=threshold or, with enough "
                "memory, --set data.stream=never",
            )
        fixed = mode == "dynamic" and split != "train"
        return self._replace(binarize="fixed" if fixed else mode, draw=(split, seed))

    def to(self, device: torch.device | str) -> StreamedImages:
        y = None if self.y is None else self.y.to(device)
        table = {name: values.to(device) for name, values in self.table.items()}
        return self._replace(y=y, table=table, device=torch.device(device))

    def relabelled(self, y: Tensor | None, spec: DataSpec) -> StreamedImages:
        return self._replace(y=y, spec=spec)

    def with_source(self, source: Source, spec: DataSpec) -> StreamedImages:
        """Return the images with values from another source of the same examples."""
        return self._replace(source=source, spec=spec)

    def with_table(self, table: Mapping[str, Tensor], spec: DataSpec) -> StreamedImages:
        return self._replace(table=table, spec=spec)

    def same_as(self, other: ImageSplit) -> bool:
        if not isinstance(other, StreamedImages):
            return False
        return self.source is other.source and torch.equal(self.indices, other.indices)

    def _replace(self, **changes: object) -> StreamedImages:
        names = (
            "source",
            "indices",
            "origin",
            "files",
            "binarize",
            "draw",
            "device",
            "workers",
            "reason",
        )
        options: dict[str, Any] = {"y": self.y, "spec": self.spec, "table": self.table}
        options |= {name: getattr(self, name) for name in names} | changes
        return StreamedImages(**options)

    def _prefetch(self, parts: Sequence[Tensor]) -> Prefetcher:
        indices = [self.indices[part].tolist() for part in parts]
        return Prefetcher(Reader(self.source), indices, self.workers, self.device)

    def _next_prefetched(self, positions: Tensor) -> Tensor | None:
        """Return the prefetched batch if it is the one at `positions`, otherwise None."""
        state = self._state
        if state.prefetcher is None:  # the start of an epoch, or its middle after a resume
            rest = list(dropwhile(lambda part: not torch.equal(part, positions), state.expected))
            if not rest:
                return None
            state.expected, state.prefetcher = rest, self._prefetch(rest)
        if not state.expected or not torch.equal(state.expected[0], positions):
            return None
        state.expected.pop(0)
        return state.prefetcher.next()

    def _preprocess(self, x: Tensor, positions: Tensor) -> Tensor:
        """Convert stored images on the device to model input, except for `dynamic`."""
        if x.dtype == torch.uint8:
            x = torch.div(x, self._white)
        if self.binarize == "threshold":
            return (x >= 0.5).to(x.dtype)
        if self.binarize == "fixed":
            split, seed = self.draw
            purpose = f"binarize {split}, one image"
            rows = [
                torch.bernoulli(row, generator=generator("cpu", purpose, seed, index))
                for row, index in zip(x.cpu(), positions.tolist(), strict=True)
            ]
            return torch.stack(rows).to(x.device) if rows else x
        return x


@dataclass
class _State:
    """The mutable state of the prefetch of StreamedImages, which is a frozen class."""

    expected: list[Tensor] = field(default_factory=list)
    prefetcher: Prefetcher | None = None


def stream_from_memory(images: ImageSplit, workers: int, reason: str) -> StreamedImages:
    """Return a split that is streamed to a device from images in the host's memory."""
    mode: Binarize = "dynamic" if images.dynamic else "none"
    source = InMemory(images.x, "the images in memory")
    return StreamedImages(
        *(source, images.y, images.spec),
        origin=images.origin,
        files=images.files,
        table=images.table,
        binarize=mode,
        workers=workers,
        reason=reason,
    )
