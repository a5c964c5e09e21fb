"""Two functions that vmap takes apart into many slow ones, for members side by side.

They compute what torch's do, up to rounding; a rehearsal compares them with steps made alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class StackedLinear(torch.autograd.Function):
    """x (N, B, in), weight (N, out, in), bias (N, out) to (N, B, out).

    torch's own gives the weight's gradient transposed, and all of it is then copied.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        to_x = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        return to_x, torch.bmm(grad.transpose(1, 2), x), grad.sum(1)


class StackedCrossEntropy(torch.autograd.Function):
    """Sums over all but the first dimension of -t log s(x) - (1 - t) log(1 - s(x)), x the logits:
    log(1 + exp(x)) - t x, whose derivative is s(x) - t."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(x, target)
        return F.softplus(x).addcmul_(x, target, value=-1).flatten(1).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), (x, target) = grads, ctx.saved_tensors
        each = grad.view(-1, *[1] * (x.ndim - 1))
        return torch.sigmoid(x).sub_(target).mul_(each), None


class _Member(torch.autograd.Function):
    """What one member computes under vmap, whose rule is one of the functions above."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("autograd sees the stacked function alone")


class Linear(_Member):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *given: Tensor) -> tuple[Tensor, int]:
        x, weight, bias = _in_front(info.batch_size, dims, given)
        result: Tensor = StackedLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result, 0


class CrossEntropy(_Member):
    @staticmethod
    def forward(x: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, target, reduction="sum")

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *given: Tensor) -> tuple[Tensor, int]:
        x, target = _in_front(info.batch_size, dims, given)
        result: Tensor = StackedCrossEntropy.apply(x, target)  # type: ignore[no-untyped-call]
        return result, 0


def _in_front(
    members: int, dims: tuple[int | None, ...], given: tuple[Tensor, ...]
) -> list[Tensor]:
    """Each tensor with the members as its first dimension."""
    return [
        value.expand(members, *value.shape) if dim is None else value.movedim(dim, 0)
        for value, dim in zip(given, dims, strict=True)
    ]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None or x.ndim != 2:
        return F.linear(x, weight, bias)
    result: Tensor = Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def cross_entropy(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    reduction = options.pop("reduction", "mean")
    plain = not any(value is not None for value in options.values())
    if not plain or reduction != "sum" or target.requires_grad:
        return F.binary_cross_entropy_with_logits(input, target, reduction=reduction, **options)
    result: Tensor = CrossEntropy.apply(input, target)  # type: ignore[no-untyped-call]
    return result


REPLACED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.linear: linear,
    F.binary_cross_entropy_with_logits: cross_entropy,
}
"""What stands in for each function of torch's while members are stepped together."""
