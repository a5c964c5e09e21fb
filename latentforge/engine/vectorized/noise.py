"""The noise of one training step, drawn beforehand: vmap gives no member its own generator.

A `Recorder` writes down what a step made alone draws; `Given` hands such noise to a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from latentforge.engine.vectorized.ops import REPLACED


class NotTogether(Exception):
    """Why members cannot be trained together, in words."""


FILLS: Mapping[Callable[..., Any], Callable[[Tensor], Tensor]] = {
    torch.randn_like: Tensor.normal_,
    torch.randn: Tensor.normal_,
    torch.rand_like: Tensor.uniform_,
    torch.rand: Tensor.uniform_,
}
"""What fills a contiguous tensor from the default generator as each function does."""


@dataclass(frozen=True)
class Draw:
    """One call of a random function: what it gave."""

    fill: Callable[[Tensor], Tensor]
    shape: torch.Size
    dtype: torch.dtype


class Recorder(TorchFunctionMode):
    """Writes down what is drawn inside. What it does not know, the generator's state shows."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FILLS and (kwargs or {}).get("generator") is None:
            if not result.is_contiguous():
                raise NotTogether("its noise does not lie in memory as its shape says")
            self.draws.append(Draw(FILLS[func], result.shape, result.dtype))
        return result


class Given(TorchFunctionMode):
    """What random functions ask for inside is taken from `noise`, in order."""

    def __init__(self, draws: Sequence[Draw], noise: Sequence[Tensor]) -> None:
        super().__init__()
        self.left: Iterator[tuple[Draw, Tensor]] = zip(draws, noise, strict=True)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in FILLS or (kwargs or {}).get("generator") is not None:
            return REPLACED.get(func, func)(*args, **(kwargs or {}))
        draw, noise = next(self.left, (None, None))
        if draw is None or noise is None or draw.fill != FILLS[func] or not fits(draw, args):
            raise NotTogether("its steps do not all draw the same noise")
        return noise

    def check_used(self) -> None:
        if next(self.left, None) is not None:
            raise NotTogether("its steps do not all draw the same noise")


def fits(draw: Draw, args: tuple[Any, ...]) -> bool:
    """Whether a call asks for the shape that was drawn: by an example, by a shape, by numbers."""
    if args and isinstance(args[0], Tensor):
        return args[0].shape == draw.shape
    numbers = args[0] if args and not isinstance(args[0], int) else args
    return not args or tuple(numbers) == tuple(draw.shape)


def generators_state(device: torch.device) -> list[Tensor]:
    """Where the default generators of the CPU and of the device stand."""
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
