"""Taking the output of one layer of a classifier, by its name in `layers()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def output_of(
    layer: str, model: nn.Module, x: Tensor, keep: Callable[[Tensor], Tensor] = Tensor.clone
) -> Tensor:
    """What a layer makes of x (B, *data.shape), differentiable; its last output if it is used
    twice. `keep` sees it at once, because the next layer may work in place."""
    taken: list[Tensor] = []

    def take(module: nn.Module, inputs: Any, output: Tensor) -> None:
        taken.append(keep(output))

    handle = model.get_submodule(layer).register_forward_hook(take)
    try:
        model(x)
    finally:
        handle.remove()
    return taken[-1]
