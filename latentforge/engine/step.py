"""One training step, and the optimizer it ends with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from latentforge.config.schema import TrainConfig
from latentforge.contracts import Batch, Step, Terms
from latentforge.engine.fused_adam import Update, compiler_left_out
from latentforge.errors import ConfigError, RunFailed, one_line

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}
FUSED = {  # which have one kernel for all parameters, by the kind of device
    "cpu": {"adam", "adamw", "sgd", "adagrad"},
    "cuda": {"adam", "adamw", "sgd"},
}


Backward = Callable[
    [nn.Module, torch.optim.Optimizer, Batch, Step, int], tuple[Terms, torch.Tensor]
]


class Later(Step):
    """A step after the first one, which alone a loss looks at. Where that follows from the class,
    and not from the number, one compiled or vmapped step can stand for all of them."""

    @property
    def first(self) -> bool:
        return False


class Trainee(nn.Module):
    """Model and loss as one module, so that they are moved, optimised and wrapped together."""

    def __init__(self, model: nn.Module, loss: nn.Module, precision: str = "float32") -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.precision = precision

    def forward(self, batch: Batch, step: Step) -> Terms:
        if self.precision == "bf16":
            with torch.autocast(batch.x.device.type, torch.bfloat16):
                terms: Terms = self.loss(self.model, batch, step)
            return terms
        terms = self.loss(self.model, batch, step)
        return terms


@compiler_left_out()
def build_optimizer(trainee: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of the config, fused where torch has it; ConfigError for bad options."""
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError("the model and its loss have no parameters to train")
    options = {"lr": config.lr, "weight_decay": config.weight_decay, **config.optimizer_options}
    [kind] = {p.device.type for p in parameters}
    if config.optimizer in FUSED.get(kind, ()) and not options.get("foreach"):
        options.setdefault("fused", True)
    try:
        return OPTIMIZERS[config.optimizer](parameters, **options)  # type: ignore[arg-type]
    except Exception as error:  # torch unpacks and compares some of them before it looks
        raise ConfigError(
            f"optimizer {config.optimizer!r} refuses its options",
            details=[f"train.optimizer_options: {one_line(error)}"],
        ) from None


def take_step(
    trainee: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: Step,
    *,
    gate: Gate,
    parts: int = 1,
    clip: float = 0.0,
    backward: Backward | None = None,
    update: Update | None = None,
) -> Terms:
    """Forward, backward, update. Returns the terms, still on the device.

    The batch goes through in `parts`, one after the other, whose gradients add up to the batch's
    own; they are scaled down to a norm of `clip`, unless that is 0. Where the loss or that norm is
    not finite, `gate` keeps the weights as they are. `backward` stands in for `gradients`, `update`
    for `optimizer.step`.
    """
    terms, total = (backward or gradients)(trainee, optimizer, batch, step, parts)
    if clip:
        norm = torch.nn.utils.clip_grad_norm_(trainee.parameters(), clip)
        total = total + 0.0 * norm  # finite only where both are
    if gate.passes(total, optimizer):
        (update or optimizer.step)()
    # Detached: whoever keeps them would keep autograd's graph too, whose nodes remember their
    # stream, and a capture on another one would add gradients beside it.
    values = {name: value.detach() for name, value in terms.values.items()}
    return terms._replace(values=values)


def gradients(
    trainee: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, step: Step, parts: int = 1
) -> tuple[Terms, torch.Tensor]:
    """Forward and backward: the terms, and what was minimised, detached."""
    for group in optimizer.param_groups:  # zero_grad() does no more, in 27 µs for this one
        for parameter in group["params"]:
            parameter.grad = None
    if parts == 1:
        terms = forward(trainee, batch, step)
        total = terms.total()
        total.backward()  # type: ignore[no-untyped-call]
    else:
        terms = accumulate(trainee, batch, step, parts)
        total = terms.total()
    return terms, total.detach()


class Gate:
    """Lets no step move the weights from the first one on whose loss is not finite.

    On the CPU it looks at each loss, which costs 1 µs there. Elsewhere that would wait for the
    device: a flag stays on it, which a fused optimizer obeys, and `closed` is asked now and then.
    """

    def __init__(self, device: torch.device | str, *, wait: bool | None = None) -> None:
        self.wait = torch.device(device).type == "cpu" if wait is None else wait
        self.shut = False
        self.flag = torch.zeros((), device=device)

    def passes(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> bool:
        """Whether to take the step; True where the device will see to it."""
        if self.wait:
            self.shut = self.shut or not math.isfinite(loss.item())
            return not self.shut
        torch.maximum(self.flag, (~loss.isfinite()).float(), out=self.flag)
        if any(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = self.flag  # type: ignore[attr-defined]  # torch's own for this
            return True
        return not self.closed()

    def closed(self) -> bool:
        """Whether a step was kept from the weights; waits for the device."""
        return self.shut or bool(self.flag)


def forward(trainee: nn.Module, batch: Batch, step: Step) -> Terms:
    if not step.first:
        terms: Terms = trainee(batch, step)
    else:
        terms = trainee.forward(batch, step)  # not compiled: it looks at what it gets, once
        if not isinstance(terms, Terms):
            raise TypeError(f"the loss returned {type(terms).__name__}, not Terms")
        terms.check()
    return terms


def accumulate(trainee: nn.Module, batch: Batch, step: Step, parts: int) -> Terms:
    """Forward and backward of each part, weighted by its share of the images; the batch's terms."""
    values: dict[str, torch.Tensor] = {}
    per_dim: dict[str, torch.Tensor] = {}
    weights: dict[str, float] = {}
    for part in cut(batch, parts):
        share = len(part.index) / len(batch.index)
        terms = forward(trainee, part, step)
        (terms.total() * share).backward()  # type: ignore[no-untyped-call]
        for sums, new in ((values, terms.values), (per_dim, terms.per_dim)):
            for name, value in new.items():
                sums[name] = value.detach() * share + sums.get(name, 0.0)
        weights = dict(terms.weights)
    return Terms(values, weights, per_dim)


def cut(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in so many parts, or one of each image where there are fewer images."""
    index = batch.index.tensor_split(min(parts, len(batch.index)))
    start = 0
    for places in index:
        part = slice(start, start := start + len(places))
        yield Batch(batch.x[part], None if batch.y is None else batch.y[part], places)


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
