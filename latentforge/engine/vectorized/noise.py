"""Samples the noise of a step in advance, because vmap cannot give each member its own generator.

`Recorder` records a step's random calls; `SuppliedNoise` supplies the results to a vmapped step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from latentforge.engine.vectorized.ops import REPLACED


class NotStackable(Exception):
    """Members cannot be trained together; the message is the reason."""


FILLS: Mapping[Callable[..., Any], Callable[[Tensor], Tensor]] = {
    torch.randn_like: Tensor.normal_,
    torch.randn: Tensor.normal_,
    torch.rand_like: Tensor.uniform_,
    torch.rand: Tensor.uniform_,
}
"""For each function, the method that fills a contiguous tensor with the same random numbers."""


@dataclass(frozen=True)
class Draw:
    """One call of a random function: how to repeat it, and the shape and dtype of its result."""

    fill: Callable[[Tensor], Tensor]
    shape: torch.Size
    dtype: torch.dtype


class Recorder(TorchFunctionMode):
    """Records calls of the functions in FILLS. The generators' state reveals other random calls."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FILLS and (kwargs or {}).get("generator") is None:
            if not result.is_contiguous():
                raise NotStackable("its noise is not a contiguous tensor")
            self.draws.append(Draw(FILLS[func], result.shape, result.dtype))
        return result


class SuppliedNoise(TorchFunctionMode):
    """Makes random functions in the block return the tensors of `noise`, in order."""

    def __init__(self, draws: Sequence[Draw], noise: Sequence[Tensor]) -> None:
        super().__init__()
        self.remaining: Iterator[tuple[Draw, Tensor]] = zip(draws, noise, strict=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in FILLS or (kwargs or {}).get("generator") is not None:
            return REPLACED.get(func, func)(*args, **(kwargs or {}))
        draw, noise = next(self.remaining, (None, None))
        if draw is None or noise is None or draw.fill != FILLS[func] or not fits(draw, args):
            raise NotStackable("its steps do not all draw the same random numbers")
        return noise

    def check_used(self) -> None:
        if next(self.remaining, None) is not None:
            raise NotStackable("its steps do not all draw the same random numbers")


def fits(draw: Draw, args: tuple[Any, ...]) -> bool:
    """Whether a call requests the recorded shape, given as a tensor, a shape or numbers."""
    if args and isinstance(args[0], Tensor):
        return args[0].shape == draw.shape
    numbers = args[0] if args and not isinstance(args[0], int) else args
    return not args or tuple(numbers) == tuple(draw.shape)


def generator_states(device: torch.device) -> list[Tensor]:
    """The states of the default generators of the CPU and of the device."""
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
