"""What is said where numbers have become NaN or infinite."""

from __future__ import annotations

from torch import Tensor, nn

from latentforge.errors import RunFailed


def check_finite(trainee: nn.Module, step: int) -> None:
    """RunFailed where a parameter or a buffer is NaN or infinite: such weights are never kept."""
    for name, value in trainee.state_dict().items():
        if (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and not bool(value.isfinite().all())
        ):
            raise RunFailed(
                f"the weights became NaN or infinite by step {step} ({name})",
                details=["the checkpoint before it is as it was"],
                remedy="a smaller --lr",
            )


def largest_gradient(trainee: nn.Module) -> list[str]:
    """A line on the parameters' gradients, and one where a weight itself is not finite."""
    lines = []
    for name, parameter in trainee.named_parameters():
        if not bool(parameter.isfinite().all()):
            lines.append(f"before it, {name} was not finite: the step before has ruined it")
            break
    largest = {
        name: float(parameter.grad.abs().max())
        for name, parameter in trainee.named_parameters()
        if parameter.grad is not None and parameter.grad.numel()
    }
    if not largest:
        return lines
    # NaN is the largest of all
    worst = max(largest, key=lambda name: (largest[name] != largest[name], largest[name]))
    return [*lines, f"its largest gradient: {largest[worst]:.3g}, of {worst}"]
