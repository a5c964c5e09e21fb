"""Random seeds, generators and noise as pure functions of (purpose, numbers).

No generator state outlives a step. A resumed run therefore gets the same numbers as an
uninterrupted run, and no state has to be saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 0x9E3779B97F4A7C15
"""An odd number: the seeds of 2^32 steps differ in the 32 bits that a CPU generator uses."""


def mix(purpose: str, *parts: int) -> int:
    """Return a 63-bit seed that depends only on the arguments, not on a machine or version."""
    text = "\0".join((purpose, *map(str, parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device | str, purpose: str, *parts: int) -> torch.Generator:
    """A new generator on `device`, seeded with `mix(purpose, *parts)`."""
    return torch.Generator(device=device).manual_seed(mix(purpose, *parts))


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The image order of an epoch, int64 (n,): computed on the CPU, so equal for all devices."""
    return torch.randperm(n, generator=generator("cpu", "order", seed, epoch))


def callers_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """Restore the state of the default generators of the CPU and of `device` at exit."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def seeded_draws(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch's CPU, and restore their states at exit."""
    import random

    import numpy as np

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds all devices
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class Noise:
    """Reseeds the default generators before each step. Dropout and a plugin's `randn_like` use
    these generators, so their noise depends only on (purpose, seed, step).

    On an accelerator the CPU generator is reseeded too, because a model may sample noise on the CPU
    and copy it. Reseeding takes about 1 µs on the CPU (`torch.manual_seed` would take 74 µs).
    """

    def __init__(self, device: torch.device | str, purpose: str, seed: int) -> None:
        self._start = mix(purpose, seed)
        self._seeders: list[Callable[[int], object]] = [torch.default_generator.manual_seed]
        device = torch.device(device)
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # before this call, the tuple of generators is empty
            index = torch.cuda.current_device() if device.index is None else device.index
            self._seeders.append(torch.cuda.default_generators[index].manual_seed)
        elif device.type == "mps":
            self._seeders.append(torch.mps.manual_seed)

    def reseed(self, step: int) -> None:
        """Seed the generators for the noise of `step`."""
        seed = self.seed_of(step)
        for manual_seed in self._seeders:
            manual_seed(seed)

    def seed_of(self, step: int) -> int:
        """Return the seed that `reseed` uses for `step`, for use with other generators."""
        return (self._start + step * STRIDE) & (2**63 - 1)


@dataclass(frozen=True)
class Shard:
    """The images from `start` to `stop` (exclusive) of a batch of `images` images. `draw` has the
    same state in all processes: each samples the noise of the whole batch and uses its rows."""

    draw: torch.Generator
    start: int
    stop: int
    images: int


class _Current:
    shard: Shard | None = None  # not a ContextVar, which torch.compile cannot trace


_current = _Current()


@contextmanager
def sharding(shard: Shard) -> Iterator[None]:
    """Make `noise_like` and `shared_generator` use `shard` inside the context."""
    _current.shard = shard
    try:
        yield
    finally:
        _current.shard = None


def shared_generator() -> torch.Generator | None:
    """Return `draw` of the current shard, or None (the default generator) if there is no shard."""
    shard = _current.shard
    return shard.draw if shard else None


def noise_like(values: Tensor) -> Tensor:
    """Sample N(0, I) with the shape (B, ...), dtype and memory format of `values`.

    In a single process this is `torch.randn_like`. If several processes shard a batch, each samples
    the noise of the whole batch and returns the rows of its own images. The noise is then the same
    as in a single process, unlike with `torch.randn_like`.
    """
    shard = _current.shard
    if shard is None or len(values) != shard.stop - shard.start:
        return torch.randn_like(values)
    # sampled in memory order, like randn_like; the image dimension always comes first
    layout = (0, *sorted(range(1, values.ndim), key=values.stride, reverse=True))
    size = (shard.images, *values.shape[1:])
    whole = torch.empty_permuted(size, layout, dtype=values.dtype, device=values.device)
    return whole.normal_(generator=shard.draw)[shard.start : shard.stop]
