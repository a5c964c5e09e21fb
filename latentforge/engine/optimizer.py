"""Builds optimizers, fused where torch has a fused kernel, and stores and restores their state.

Only `without_compiler_import` uses a private torch API; it does nothing if that API has changed.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from latentforge.config.schema import TrainConfig
from latentforge.errors import ConfigError, one_line

OPTIMIZERS: dict[str, type[Optimizer]] = {
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
FUSED = {  # optimizers with one kernel for all parameters, by device type
    "cpu": {"adam", "adamw", "sgd", "adagrad"},
    "cuda": {"adam", "adamw", "sgd"},
}
OWN_LR = "initial_lr"
"""The key of a group's learning rate before the schedule, as in torch's schedulers."""
WRAPPED = ("add_param_group", "state_dict", "load_state_dict")
"""Optimizer methods for which torch imports its compiler, in order not to compile them."""


@contextmanager
def without_compiler_import() -> Iterator[None]:
    """Prevent the methods in WRAPPED from importing torch's compiler in the block. The import takes
    half a second and is not needed here. Does nothing if torch excludes them in another way."""
    functions = [getattr(getattr(Optimizer, name), "__wrapped__", None) for name in WRAPPED]
    if "torch._dynamo" in sys.modules or None in functions:
        yield
        return
    for function in functions:
        vars(function)["__dynamo_disable"] = function  # torch checks this before it imports
    try:
        yield
    finally:
        for function in functions:
            del vars(function)["__dynamo_disable"]


@without_compiler_import()
def build_optimizer(trainee: nn.Module, config: TrainConfig) -> Optimizer:
    """Build the optimizer, fused if torch supports it. Raises ConfigError for invalid options."""
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError("the model and its loss have no parameters to train")
    options = {"lr": config.lr, "weight_decay": config.weight_decay, **config.optimizer_options}
    [kind] = {p.device.type for p in parameters}
    if config.optimizer in FUSED.get(kind, ()) and not options.get("foreach"):
        options.setdefault("fused", True)
    try:
        return OPTIMIZERS[config.optimizer](parameters, **options)  # type: ignore[arg-type]
    except Exception as error:  # torch unpacks and compares some options before it checks them
        raise ConfigError(
            f"optimizer {config.optimizer!r} rejects its options",
            details=[f"train.optimizer_options: {one_line(error)}"],
        ) from None


def direct_step(optimizer: Optimizer) -> Callable[[], Any]:
    """Return `optimizer.step` without torch's wrappers: the profiler's span, hooks, and a check
    that imports the compiler. The wrappers take 30 to 50 µs of a step on a CPU.

    The wrapped function is found through `__wrapped__`, which functools defines. On another device,
    for a differentiable step, or if nothing is wrapped, the result is `optimizer.step` itself.
    """
    inner = inspect.unwrap(type(optimizer).step)
    devices = {p.device.type for group in optimizer.param_groups for p in group["params"]}
    if devices != {"cpu"} or optimizer.defaults.get("differentiable"):
        return optimizer.step
    step: Callable[[], Any] = torch.no_grad()(functools.partial(inner, optimizer))
    return step


def added_groups(optimizer: Optimizer, trainee: nn.Module, known: int) -> list[dict[str, Any]]:
    """Return the groups after the first `known`, which a callback has added, each with its own
    learning rate under OWN_LR. Raises ValueError if a group was removed, or if a parameter belongs
    neither to the model nor to the loss."""
    groups = optimizer.param_groups
    if len(groups) < known:
        raise ValueError("a parameter group was removed from the optimizer")
    own = {id(parameter) for parameter in trainee.parameters()}
    for group in groups[known:]:
        if foreign := [p for p in group["params"] if id(p) not in own]:
            raise ValueError(
                f"it added a parameter of shape {tuple(foreign[0].shape)} to the optimizer that "
                "belongs neither to the model nor to the loss, so no checkpoint would contain it"
            )
        group[OWN_LR] = float(group.get(OWN_LR, group["lr"]))  # restored, or just added
    return groups[known:]


@without_compiler_import()
def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the state as tensors named `<parameter index>.<key>`, with numbers as 0-d tensors, and
    the options of the groups as JSON values."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for key, value in values.items()
        if value is not None
    }
    groups = [
        {k: float(v) if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
        for group in state["param_groups"]
    ]
    return tensors, groups


@without_compiler_import()
def restore_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Load an optimizer's state, each tensor in the memory format of its parameter. The file stores
    contiguous tensors, with which a fused step would pair the wrong elements without an error."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        if key != "step" and value.ndim and value.shape != parameter.shape:
            shapes = f"{tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
            raise ValueError(f"{key} of parameter {index} in the optimizer has shape {shapes}")
        if key != "step" and value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[key] = value
    current = optimizer.state_dict()["param_groups"]
    for group, stored in zip(current, groups, strict=True):
        for key, option in stored.items():
            if isinstance(group.get(key), float) and not isinstance(option, float | int):
                raise TypeError(f"{key} of the optimizer must be a number, not {option!r}")
            group[key] = tuple(option) if isinstance(group.get(key), tuple) else option
    optimizer.load_state_dict({"state": state, "param_groups": current})
