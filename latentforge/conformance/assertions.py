"""Training steps and assertions for the contract checks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.conformance.subject import (
    CheckFailed,
    CheckSkipped,
    Subject,
    T,
    rejected_run,
    require,
)
from latentforge.contracts import Batch, DataSpec, Step, Terms
from latentforge.contracts.data import MissingFactorError
from latentforge.engine.step import Trainee, followed_by
from latentforge.errors import ConfigError, LatentForgeError, UsageError, one_line
from latentforge.seeding import mix

TIMINGS = ("seconds", "per_second")  # suffixes of the names of measured times
HANDLE_DATA = "handle this data, or raise UsageError with a hint"
LABELS_HINT = (
    "set labels=True in its spec, or do not use y; if only an option needs y, raise UsageError"
)
SEED_HINT = "use torch's default generator, which is seeded, or the seed in the context"
MODEL_HINT = "work on a copy (copy.deepcopy), and keep the models in evaluation mode"


def make_step(index: int = 3) -> Step:
    return Step(index, total=100, images=60, epoch_length=10)


# of 100 steps, because the weight of a term may change during a run
SAMPLE_STEPS = (make_step(0), make_step(50), make_step(99))


def seed_torch(number: int, purpose: str = "conformance") -> None:
    """Seed torch's default generators with a function of the purpose and the number."""
    torch.manual_seed(mix(purpose, number))


def run_with_seeds(seeds: Iterable[int], make: Callable[[], T]) -> list[T]:
    """Return the results of calling `make` once with each seed."""
    results = []
    for seed in seeds:
        seed_torch(seed)
        results.append(make())
    return results


@contextmanager
def require_shape_support(subject: Subject, data: DataSpec) -> Iterator[None]:
    """Raise CheckFailed if the code inside raises an exception for this data. A LatentForgeError is
    allowed, because it declares that the data is not supported."""
    try:
        yield
    except (CheckFailed, CheckSkipped, LatentForgeError):
        raise
    except Exception as error:
        saw = f"for {data.shape} it raises {subject.describe_error(error)}"
        hint = "fix it; for an unsupported shape, raise UsageError in `build`"
        raise CheckFailed(saw, hint) from error


def call_loss(loss: nn.Module, model: nn.Module, batch: Batch, step: Step, seed: int = 0) -> Terms:
    """The terms of a loss, called in the same way as in a run."""
    seed_torch(seed)
    terms: Terms = loss(model, batch, step)
    return terms


def find_refusal(make_loss: Callable[[], nn.Module], model: nn.Module, batch: Batch) -> str:
    """The message of the UsageError that a loss raises when it is built or in the first step of a
    run, because its likelihood does not support the data. The checks find other errors."""
    try:
        with torch.no_grad():
            call_loss(make_loss(), model, batch, make_step(0))
    except UsageError as error:
        return error.message
    except CheckFailed:
        raise
    except Exception:
        pass
    return ""


def skip_unless_provided(subject: Subject, capability: str) -> None:
    if capability not in subject.entry.provides:
        raise CheckSkipped(f"it does not provide {capability}")


def require_tensor(value: Any, shape: tuple[int, ...], what: str, dtype: torch.dtype) -> None:
    """Raise CheckFailed unless the value is a finite tensor of this shape and dtype."""
    observed = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    hint = f"return shape {shape}; the first dimension is the batch"
    require(observed == shape, f"{what} has shape {observed}, not {shape}", hint)
    require(value.dtype == dtype, f"{what} is {value.dtype}", f"return {dtype}")
    if value.is_floating_point():
        require(value.isfinite().all(), f"{what} contains NaN or infinity", "fix the arithmetic")


@contextmanager
def require_unmodified(batch: Batch) -> Iterator[None]:
    """Raise CheckFailed if the code inside writes into a batch."""
    tensors = [value for value in (batch.x, batch.y) if value is not None]
    before = [value.clone() for value in tensors]
    yield
    same = all(map(torch.equal, tensors, before))
    require(same, "it modifies the batch", "create new tensors; no x.add_(), no x[...] = ...")


@contextmanager
def use_other_device(hint: str) -> Iterator[torch.device]:
    """Yield another device: a GPU if there is one, else torch's device `meta`, whose tensors have
    no values. A tensor that was not moved raises CheckFailed. Any other error on `meta` raises
    CheckSkipped, because the code inside reads values."""
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    try:
        yield device
    except (RuntimeError, NotImplementedError, TypeError) as error:
        mixed = re.search("same device|two devices|expected device", str(error).lower())
        if device.type == "meta" and not mixed:
            why = "it reads values, and tensors on torch's device `meta` have none"
            raise CheckSkipped(f"{why}: {one_line(error)}") from None
        raise CheckFailed(f"on {device}: {error}", hint) from None


def require_same(one: Tensor, other: Tensor, saw: str, hint: str) -> None:
    """Raise CheckFailed unless two tensors are equal up to rounding errors of sums."""
    scale = float(one.detach().abs().max()) + 1e-6
    largest_difference = float((one.detach() - other.detach()).abs().max())
    saw = f"{saw} (by {largest_difference:.3g} of {scale:.3g})"
    require(largest_difference <= 1e-4 * scale, saw, hint)


def train_steps(
    model: nn.Module,
    loss: nn.Module,
    batch: Batch,
    steps: Sequence[Step] = SAMPLE_STEPS,
    lr: float = 1e-3,
) -> Iterator[Tensor]:
    """Train with Adam, in training mode and with the same noise in each step. Yields the total loss
    before each step, when the parameters have the gradients of this loss."""
    modules = nn.ModuleList([model, loss]).train()
    optimizer = torch.optim.Adam([p for p in modules.parameters() if p.requires_grad], lr=lr)
    update = followed_by(optimizer.step, Trainee(model, loss).step_hooks)
    for step in steps:
        total: Tensor = call_loss(loss, model, batch, step).total()
        optimizer.zero_grad()
        torch.autograd.backward(total)
        yield total.detach()
        update()


def parameters_without_gradient(module: nn.Module, steps: Iterator[Tensor]) -> list[str]:
    """The names of the trainable parameters that no gradient reaches in any of the steps. Raises
    CheckFailed if a gradient is not finite."""
    remaining = [name for name, p in module.named_parameters() if p.requires_grad]
    hint = "check for 0 * log 0, the square root of 0 and the standard deviation of equal numbers"
    for _ in steps:
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        not_finite = [name for name, value in gradients.items() if not value.isfinite().all()]
        saw = f"the gradient of {', '.join(not_finite)} is NaN or infinite"
        require(not not_finite, saw, hint)
        remaining = [n for n in remaining if n not in gradients or not gradients[n].any()]
    return remaining


@contextmanager
def require_handled(run: str, hint: str = HANDLE_DATA) -> Iterator[None]:
    """Raise CheckSkipped if the code inside refuses a run with a UsageError, and CheckFailed for
    any other exception. `run` describes the run."""
    try:
        yield
    except UsageError as error:
        raise CheckSkipped(f"it rejects {run}: {error.message}") from None
    except (CheckFailed, CheckSkipped):
        raise
    except Exception as error:
        raise CheckFailed(f"for {run}: {error}", hint) from error


@contextmanager
def refusal_is_not_checked(subject: Subject) -> Iterator[None]:
    """Raise NotChecked if the component refuses the run of all checks."""
    try:
        yield
    except ConfigError:
        raise
    except UsageError as error:
        require_declared_factors(subject, error)
        raise rejected_run(error) from None


def require_declared_factors(subject: Subject, error: UsageError) -> None:
    """Raise CheckFailed if a refusal says that the data lacks a factor which the component reads
    without declaring it."""
    if isinstance(error.__cause__, MissingFactorError) and not subject.entry.spec.factors:
        raise CheckFailed(error.message, "declare factors=True in the spec") from None


def without_times(metrics: Mapping[str, float]) -> str:
    """The metrics without measured times, as text."""
    return repr({k: v for k, v in metrics.items() if not k.endswith(TIMINGS)})


@contextmanager
def require_unmodified_models(models: Mapping[str, nn.Module]) -> Iterator[None]:
    """Raise CheckFailed if the code inside changes one of the models, given by name."""
    before = {name: _fingerprint(model) for name, model in models.items()}
    yield
    changed = [name for name, model in models.items() if _fingerprint(model) != before[name]]
    saw = f"weights, buffers, mode or requires_grad of {' and '.join(changed)} have changed"
    require(not changed, saw, MODEL_HINT)


def _fingerprint(model: nn.Module) -> str:
    """A hash of the weights, the buffers, the modes and requires_grad."""
    flags = [module.training for module in model.modules()]
    digest = hashlib.sha256(str([flags, [p.requires_grad for p in model.parameters()]]).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()
