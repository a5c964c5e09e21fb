"""A few steps of training, on which models and losses are tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from latentforge.conformance.assertions import seeded, step_of
from latentforge.conformance.subject import require
from latentforge.contracts import Batch, Step

FEW = (step_of(0), step_of(50), step_of(99))  # of a hundred: a weight may be warmed up, or end


def stepping(
    model: nn.Module, loss: nn.Module, batch: Batch, steps: Sequence[Step] = FEW
) -> Iterator[Tensor]:
    """The total before each step of Adam, in training mode, under one noise; while it is looked at,
    the parameters hold its gradients."""
    both = nn.ModuleList([model, loss]).train()
    optimizer = torch.optim.Adam([p for p in both.parameters() if p.requires_grad], lr=1e-3)
    for step in steps:
        seeded(0)
        total: Tensor = loss(model, batch, step).total()
        optimizer.zero_grad()
        torch.autograd.backward(total)
        yield total.detach()
        optimizer.step()


def without_gradient(module: nn.Module, steps: Iterator[Tensor]) -> list[str]:
    """The names of the parameters that could be trained and that no gradient reaches in any of the
    steps; CheckFailed where one is not finite."""
    left = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for _ in steps:
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        ruined = [name for name, value in gradients.items() if not bool(value.isfinite().all())]
        require(
            not ruined,
            f"the gradient of {', '.join(ruined)} is NaN or infinite",
            "mind 0 * log 0, the square root of 0 and the standard deviation of equal numbers",
        )
        for name, value in gradients.items():
            if bool(value.any()):
                left.pop(name, None)
    return list(left)
