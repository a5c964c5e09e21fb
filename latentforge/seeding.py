"""Randomness as a pure function of (purpose, numbers): no generator's state outlives a step.

A run resumed at any step draws what the uninterrupted run drew there, and nothing has to be saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager

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
