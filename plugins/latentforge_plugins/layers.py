"""Captures the outputs of a model's layers, which are identified by their names in `layers()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def capture_outputs(
    model: nn.Module, names: Iterable[str], keep: Callable[[Tensor], Tensor] = Tensor.clone
) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that contains the named layers' outputs after each call of the model. The
    outputs are differentiable. If a layer is called twice, its last output is kept. `keep` is
    applied immediately, because the next layer may modify the output in place."""
    captured: dict[str, Tensor] = {}

    def save(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        captured[name] = keep(output)

    handles = [
        model.get_submodule(name).register_forward_hook(partial(save, name)) for name in names
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def output_of(
    layer: str, model: nn.Module, x: Tensor, keep: Callable[[Tensor], Tensor] = Tensor.clone
) -> Tensor:
    """Return the output of one layer for x (B, *data.shape), collected by `capture_outputs`."""
    with capture_outputs(model, [layer], keep) as captured:
        model(x)
    return captured[layer]


def last_with_weights(model: Any) -> str | None:
    """Return the name of the last layer in `model.layers()` that has a `weight`, or None."""
    for name in reversed(list(model.layers())):
        if getattr(model.get_submodule(name), "weight", None) is not None:
            return str(name)
    return None
