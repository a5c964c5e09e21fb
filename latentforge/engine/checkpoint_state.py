"""What a checkpoint holds of a training, so that it goes on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentforge.config.schema import RunConfig
from latentforge.engine.diagnostics import Finding
from latentforge.engine.fused_adam import compiler_left_out
from latentforge.engine.result import outcome_of
from latentforge.errors import RunFailed
from latentforge.io.paths import finite
from latentforge.plugins.attribution import blame
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.runtime import torchrun

if TYPE_CHECKING:
    from latentforge.engine.trainer import Trainer

HEADER = 2**24  # bytes that names and shapes may take in a file of tensors
LARGEST = 16
"""How many times the bytes of all parameters an optimizer's state may take; Adam's takes two."""


KEPT: dict[str, type] = {
    **dict.fromkeys(("step", "epoch", "closed_step", "best_epoch", "waited", "threads"), int),
    **dict.fromkeys(("history", "course", "outcome", "protocol", "events", "plugins"), dict),
    **dict.fromkeys(("held", "optimizer", "callbacks"), list),
    **dict.fromkeys(("device", "torch"), str),
}
"""What a state has, and of which kind."""


@compiler_left_out()
def capture(trainer: Trainer) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Groups of tensors, and JSON values. The history must have been fetched.

    Raises RunFailed where a module keeps something else, which nothing could bring back.
    """
    history, facts = trainer.history.state()
    groups = {
        "model": trainer.trainee.model.state_dict(),
        "loss": trainer.trainee.loss.state_dict(),
        "optimizer": optimizer_tensors(trainer.optimizer),
        "history": history,
    }
    if trainer.average:
        groups["ema-model"] = trainer.average.trainee.model.state_dict()
        groups["ema-loss"] = trainer.average.trainee.loss.state_dict()
    for name, value in trainer.trainee.state_dict().items():
        if not isinstance(value, Tensor):
            raise RunFailed(
                f"{name} of the model or its loss is a {type(value).__name__}, not a tensor",
                remedy="keep it in a buffer: a checkpoint holds tensors",
            )
    outcome, selection = trainer.outcome, trainer.selection
    state = {
        "step": outcome.steps,
        "epoch": outcome.epochs,
        "closed_step": trainer.closed_step,
        "total_steps": trainer.total_steps,
        "best_score": selection.best,
        "best_epoch": selection.epoch,
        "waited": selection.waited,
        "threads": torch.get_num_threads(),
        "processes": torchrun.count(),
        "device": trainer.device.type,
        "torch": torch.__version__,
        "ways": trainer.stepper.ways(),
        "plugins": versions(trainer.config),
        "history": facts,
        "held": trainer.held,
        "course": asdict(trainer.course),
        "optimizer": [
            {
                key: float(value) if isinstance(value, Tensor) else value
                for key, value in group.items()
                if key != "params"
            }
            for group in trainer.optimizer.state_dict()["param_groups"]
        ],
        "outcome": finite({**asdict(outcome), "status": "running", "signal": 0}),
        "protocol": trainer.evaluator.protocol,
        "events": trainer.board.written(),
        "callbacks": callback_states(trainer),
    }
    return {name: tensors for name, tensors in groups.items() if tensors}, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by `parameter.key`, numbers as 0-d tensors."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


@compiler_left_out()
def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    groups: list[dict[str, Any]],
) -> None:
    """Take up an optimizer's state, each tensor in the layout of its parameter: the file has them
    contiguous, and a fused step would pair the wrong elements without an error."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        if key != "step" and value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[key] = value
    now = optimizer.state_dict()["param_groups"]
    for group, kept in zip(now, groups, strict=True):
        for key, given in kept.items():
            if isinstance(group.get(key), float) and not isinstance(given, float | int):
                raise TypeError(f"{key} of the optimizer is {given!r}")
            group[key] = tuple(given) if isinstance(group.get(key), tuple) else given
    optimizer.load_state_dict({"state": state, "param_groups": now})


def versions(config: RunConfig) -> dict[str, str]:
    """The version of each plugin that a training uses, by `distribution/name`."""
    plugins = [part.entry.plugin for part in config.components()]
    return {"/".join(filter(None, [p.distribution, p.name])): p.version for p in plugins}


def size_of(module: nn.Module) -> int:
    """The bytes of a module's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def check_state(saved: Checkpoint) -> None:
    """RunFailed where a checkpoint's state is of a version that kept less, or not what it should
    be: anybody may have written it."""
    if "history" not in saved.state:
        raise RunFailed(
            f"{saved.path} was written by a version that kept too little to go on from",
            remedy="train it anew; what it holds can be evaluated and explored",
        )
    wrong = [key for key, kind in KEPT.items() if not isinstance(saved.state.get(key), kind)]
    try:
        outcome_of(saved)
        if not all(isinstance(size, int) for size in saved.state["events"].values()):
            wrong.append("events")
    except (TypeError, AttributeError, KeyError):
        wrong.append("outcome")
    if wrong:
        raise RunFailed(
            f"checkpoint {saved.path} is damaged: its state has no sound {wrong[0]!r}",
            remedy="--from an older one",
        )


def restore(trainer: Trainer, saved: Checkpoint) -> None:
    """Put a new trainer where the one was that wrote `saved`, whose state has been checked.

    Raises RunFailed where the checkpoint does not fit.
    """
    state = saved.state
    try:
        _restore_tensors(trainer, saved)
        _restore_values(trainer, state)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise RunFailed(
            f"the state of {saved.path} does not fit this training",
            details=[str(error).splitlines()[0]],
            remedy="the versions of LatentForge and of the plugins that run.json names",
        ) from error
    restore_callbacks(trainer, state["callbacks"])


def _restore_tensors(trainer: Trainer, saved: Checkpoint) -> None:
    trainee, average = trainer.trainee, trainer.average
    limit = LARGEST * size_of(trainee) + HEADER

    def group(name: str) -> dict[str, Tensor]:
        return saved.tensors(name, limit=limit) if name in saved.groups else {}

    trainee.model.load_state_dict(group("model"))  # copies, and so keeps each layout
    trainee.loss.load_state_dict(group("loss"))
    if average:
        average.trainee.model.load_state_dict(group("ema-model"))
        average.trainee.loss.load_state_dict(group("ema-loss"))
    restore_optimizer(trainer.optimizer, group("optimizer"), saved.state["optimizer"])
    trainer.history.restore(group("history"), saved.state["history"], trainer.device)


def _restore_values(trainer: Trainer, state: Mapping[str, Any]) -> None:
    outcome, selection = trainer.outcome, trainer.selection
    selection.best, selection.epoch = state["best_score"], state["best_epoch"]
    selection.waited = state["waited"]
    trainer.held = list(state["held"])
    trainer.course.epoch = state["course"]["epoch"]
    trainer.course.seen = {
        check: (first, last, Finding(**finding))
        for check, (first, last, finding) in state["course"]["seen"].items()
    }
    trainer.closed_step = state["closed_step"]
    trainer.evaluator.protocol.update(state["protocol"])
    # an epoch's end that was interrupted is written again, with its figures
    open_end = outcome.steps % trainer.epoch_length == 0 and trainer.closed_step != outcome.steps
    trainer.saved_step = -1 if open_end else outcome.steps


def callback_states(trainer: Trainer) -> list[Any]:
    """What each callback that has `state_dict()` wants back: JSON values.

    Raises PluginError that names the one that has others, or that could not take them back.
    """
    kept = []
    for component, callback in trainer.callbacks:
        with blame(f"the state of callback {component.name!r}", component.entry):
            state = callback.state_dict() if hasattr(callback, "state_dict") else None
            if state is not None and not hasattr(callback, "load_state_dict"):
                raise TypeError("it has state_dict() and no load_state_dict(state)")
            kept.append(json.loads(json.dumps(state, allow_nan=False)))
    return kept


def restore_callbacks(trainer: Trainer, states: list[Any]) -> None:
    for (component, callback), state in zip(trainer.callbacks, states, strict=True):
        if state is not None:
            with blame(f"restoring callback {component.name!r}", component.entry):
                callback.load_state_dict(state)
