"""What the layers of a model make of images, by their names in `layers()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def outputs(
    model: nn.Module, names: Iterable[str], keep: Callable[[Tensor], Tensor] = Tensor.clone
) -> Iterator[dict[str, Tensor]]:
    """A dictionary that holds, after each call of the model, the outputs of the named layers,
    differentiable; the last output of one that is used twice. `keep` sees each at once, because
    the next layer may work in place."""
    taken: dict[str, Tensor] = {}

    def take(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            taken[name] = keep(output)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(take(name)) for name in names]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def output_of(
    layer: str, model: nn.Module, x: Tensor, keep: Callable[[Tensor], Tensor] = Tensor.clone
) -> Tensor:
    """What one layer makes of x (B, *data.shape), as `outputs` has it."""
    with outputs(model, [layer], keep) as taken:
        model(x)
    return taken[layer]


def last_with_weights(model: Any) -> str | None:
    """The last of the model's layers() that has a weight of its own."""
    for name in reversed(list(model.layers())):
        if getattr(model.get_submodule(name), "weight", None) is not None:
            return str(name)
    return None
