"""Which part of a batch this process trains on, where several share each step, and the noise that
is drawn for the whole batch then. Knows tensors only; the engine says who has what.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The images from `start` to before `stop` of a batch of `images`. `draw` is in the same state
    in every process, so that all draw the same noise for that batch, and each takes its rows."""

    draw: torch.Generator
    start: int
    stop: int
    images: int


class _Current:
    share: Share | None = None  # a ContextVar would do, but torch.compile cannot look into one


_current = _Current()


@contextmanager
def sharing(share: Share) -> Iterator[None]:
    """Inside, `noise_like` and `shared_generator` are those of a share."""
    _current.share = share
    try:
        yield
    finally:
        _current.share = None


def shared_generator() -> torch.Generator | None:
    """What to draw a whole batch from; None, the default generator, outside of a share."""
    share = _current.share
    return share.draw if share else None


def noise_like(values: Tensor) -> Tensor:
    """N(0, I) of the shape, type and memory layout of `values`, (B, ...), one row for each image.

    In a process by itself this is `torch.randn_like`. Where several processes share a batch, all of
    it is drawn in each, and this process gets the rows of its own images: the result is then that
    of one process, which `torch.randn_like` would not give.
    """
    share = _current.share
    if share is None or len(values) != share.stop - share.start:
        return torch.randn_like(values)
    # as randn_like does: drawn in the order of memory, in which the images always come first
    layout = (0, *sorted(range(1, values.ndim), key=values.stride, reverse=True))
    size = (share.images, *values.shape[1:])
    whole = torch.empty_permuted(size, layout, dtype=values.dtype, device=values.device)
    return whole.normal_(generator=share.draw)[share.start : share.stop]
