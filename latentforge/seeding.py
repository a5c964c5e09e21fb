"""Randomness as a pure function of (purpose, numbers): no generator's state outlives a step.

A run resumed at any step draws what the uninterrupted run drew there, and nothing has to be saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 0x9E3779B97F4A7C15
"""Odd, so that the seeds of 2^32 steps differ even in the 32 bits that a CPU generator reads."""


def mix(purpose: str, *parts: int) -> int:
    """A 63-bit seed that is the same for the same arguments on every machine and version."""
    text = "\0".join((purpose, *map(str, parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device | str, purpose: str, *parts: int) -> torch.Generator:
    """A fresh generator on `device`, seeded with `mix(purpose, *parts)`."""
    return torch.Generator(device=device).manual_seed(mix(purpose, *parts))


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch: int64 (n,), on the CPU, so that every device sees the same order."""
    return torch.randperm(n, generator=generator("cpu", "order", seed, epoch))


def callers_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn inside leaves the generators of the CPU and of `device` as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


class Noise:
    """Reseeds the default generators before each step: dropout and a stranger's `randn_like` draw
    from them, and so depend on (purpose, seed, step) alone.

    The CPU's generator is reseeded along with an accelerator's, because a model may draw there and
    move the result. Costs about 1 µs on the CPU (`torch.manual_seed` would cost 74).
    """

    def __init__(self, device: torch.device | str, purpose: str, seed: int) -> None:
        self._start = mix(purpose, seed)
        self._seeders: list[Callable[[int], object]] = [torch.default_generator.manual_seed]
        device = torch.device(device)
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # before it, the tuple of generators is empty
            index = torch.cuda.current_device() if device.index is None else device.index
            self._seeders.append(torch.cuda.default_generators[index].manual_seed)
        elif device.type == "mps":
            self._seeders.append(torch.mps.manual_seed)

    def reseed(self, step: int) -> None:
        """From here on, draw the noise of `step`."""
        seed = self.seed_of(step)
        for manual_seed in self._seeders:
            manual_seed(seed)

    def seed_of(self, step: int) -> int:
        """What `reseed` seeds with, for a generator that is not a default one."""
        return (self._start + step * STRIDE) & (2**63 - 1)


@dataclass(frozen=True)
class Shard:
    """The images from `start` to before `stop` of a batch of `images`. `draw` is in the same state
    in every process, so that all draw the same noise for that batch, and each takes its rows."""

    draw: torch.Generator
    start: int
    stop: int
    images: int


class _Current:
    shard: Shard | None = None  # a ContextVar would do, but torch.compile cannot look into one


_current = _Current()


@contextmanager
def sharding(shard: Shard) -> Iterator[None]:
    """Inside, `noise_like` and `shared_generator` are those of a shard."""
    _current.shard = shard
    try:
        yield
    finally:
        _current.shard = None


def shared_generator() -> torch.Generator | None:
    """What to draw a whole batch from; None, the default generator, outside of a shard."""
    shard = _current.shard
    return shard.draw if shard else None


def noise_like(values: Tensor) -> Tensor:
    """N(0, I) of the shape, type and memory layout of `values`, (B, ...), one row for each image.

    In a process by itself this is `torch.randn_like`. Where several processes shard a batch, all of
    it is drawn in each, and this process gets the rows of its own images: the result is then that
    of one process, which `torch.randn_like` would not give.
    """
    shard = _current.shard
    if shard is None or len(values) != shard.stop - shard.start:
        return torch.randn_like(values)
    # as randn_like does: drawn in the order of memory, in which the images always come first
    layout = (0, *sorted(range(1, values.ndim), key=values.stride, reverse=True))
    size = (shard.images, *values.shape[1:])
    whole = torch.empty_permuted(size, layout, dtype=values.dtype, device=values.device)
    return whole.normal_(generator=shard.draw)[shard.start : shard.stop]
