"""Blocks, detects and explains losses, gradients and weights that are not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentforge.errors import RunFailed


class FiniteGate:
    """Blocks every update from the first step whose loss is not finite.

    On the CPU it reads each loss, which takes 1 µs. On another device, reading would wait for the
    device. There it sets a flag on the device, which a fused optimizer checks, and `closed` is
    called only occasionally.
    """

    def __init__(self, device: torch.device | str, *, wait: bool | None = None) -> None:
        self.wait = torch.device(device).type == "cpu" if wait is None else wait
        self.blocked = False
        self.flag = torch.zeros((), device=device)

    def passes(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> bool:
        """Whether to call the optimizer. True if a fused optimizer decides on the device."""
        if self.wait:
            self.blocked = self.blocked or not math.isfinite(loss.item())
            return not self.blocked
        torch.maximum(self.flag, (~loss.isfinite()).float(), out=self.flag)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = self.flag  # type: ignore[attr-defined]  # torch's attribute
            return True
        return not self.closed()

    def closed(self) -> bool:
        """Whether an update was blocked; waits for the device."""
        return self.blocked or bool(self.flag)


def find_nonfinite(module: nn.Module) -> str:
    """The name of the first parameter or buffer with NaN or infinity, or an empty string."""
    for name, value in module.state_dict().items():
        floating = isinstance(value, Tensor) and value.is_floating_point()
        if floating and not bool(value.isfinite().all()):
            return str(name)
    return ""


def check_finite(trainee: nn.Module, step: int) -> None:
    """Raise RunFailed if a weight or buffer is NaN or infinite: such weights are never stored."""
    if name := find_nonfinite(trainee):
        raise RunFailed(
            f"the weights became NaN or infinite by step {step} ({name})",
            details=["the previous checkpoint is unchanged"],
            hint="a smaller --lr",
        )


def describe_largest_gradient(trainee: nn.Module) -> list[str]:
    """Return lines that describe the largest gradient and the first non-finite parameter."""
    lines = []
    for name, parameter in trainee.named_parameters():
        if not bool(parameter.isfinite().all()):
            lines.append(f"{name} was not finite before this step: the previous step broke it")
            break
    gradients = {
        name: float(parameter.grad.abs().max())
        for name, parameter in trainee.named_parameters()
        if parameter.grad is not None and parameter.grad.numel()
    }
    if not gradients:
        return lines
    # NaN counts as the largest
    largest = max(gradients, key=lambda name: (gradients[name] != gradients[name], gradients[name]))
    return [*lines, f"the largest gradient of this step: {gradients[largest]:.3g}, of {largest}"]
