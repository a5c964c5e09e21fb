"""Adam's step on a CPU without what torch does around its kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Update = Callable[[], Any]
Lists = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]
"""Parameters, the means of their gradients and of those squared, and counts of steps."""


def quick_update(optimizer: torch.optim.Optimizer) -> Update | None:
    """What does the same as `optimizer.step()`, to the bit, in less time; None where nothing does.

    Hooks of the optimizer, which a callback may have set, are not called.
    """
    own = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
    return QuickAdam(optimizer) if own and all(map(plain, optimizer.param_groups)) else None


def plain(group: dict[str, Any]) -> bool:
    others = ("amsgrad", "capturable", "differentiable")
    on_cpu = all(parameter.device.type == "cpu" for parameter in group["params"])
    return bool(group["fused"]) and on_cpu and not any(group[option] for option in others)


WRAPPED = ("add_param_group", "state_dict", "load_state_dict")
"""An optimizer's functions that torch keeps away from its compiler, and for that imports it."""


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Inside, these functions do not import torch's compiler, which takes half a second: nothing
    compiles them here. Where torch does it in another way, nothing changes."""
    functions = [getattr(getattr(torch.optim.Optimizer, n), "__wrapped__", None) for n in WRAPPED]
    if "torch._dynamo" in sys.modules or None in functions:
        yield
        return
    for function in functions:
        vars(function)["__dynamo_disable"] = function  # where torch looks before it imports
    try:
        yield
    finally:
        for function in functions:
            del vars(function)["__dynamo_disable"]


class QuickAdam:
    """Calls the fused kernel with lists that are made once.

    `optimizer.step()` makes them anew each time, sorts them by device and opens a span for the
    profiler: 65 to 90 µs, where a step of a small network takes 1 to 2 ms. The state stays the
    optimizer's own, so a checkpoint does not know the difference.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.lists: list[tuple[dict[str, Any], Lists]] = []

    def __call__(self) -> None:
        groups = self.optimizer.param_groups
        grads = [[parameter.grad for parameter in group["params"]] for group in groups]
        every = not any(grad is None for group in grads for grad in group)
        if not every:
            self.optimizer.step()
            self.lists = []
            return
        self.lists = self.lists or self._lists()
        with torch.no_grad():
            for (group, lists), given in zip(self.lists, grads, strict=True):
                self._step(group, lists, given)

    def _lists(self) -> list[tuple[dict[str, Any], Lists]]:
        """Of each group, by Adam's own function, which makes the state where there is none yet."""
        made = []
        for group in self.optimizer.param_groups:
            lists: Lists = ([], [], [], [])
            parameters, means, squares, steps = lists
            self.optimizer._init_group(group, parameters, [], means, squares, [], steps)  # type: ignore[attr-defined]
            made.append((group, lists))
        return made

    def _step(self, group: dict[str, Any], lists: Lists, grads: list[Tensor | None]) -> None:
        parameters, means, squares, steps = lists
        decoupled = group["decoupled_weight_decay"]
        kernel: Any = torch._fused_adamw_ if decoupled else torch._fused_adam_
        torch._foreach_add_(steps, 1)
        kernel(
            *(parameters, grads, means, squares, [], steps),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )
