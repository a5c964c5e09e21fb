"""Converts a TrainingState to and from the contents of a checkpoint.

The results of a resumed run are bit-identical to those of an uninterrupted run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from latentforge.config.schema import Component, RunConfig
from latentforge.contracts import DataSpec
from latentforge.engine.build import build_modules
from latentforge.engine.diagnostics import Diagnosis
from latentforge.engine.optimizer import optimizer_state, restore_optimizer
from latentforge.engine.training_state import TrainingState, restore_result
from latentforge.errors import RunFailed
from latentforge.io.paths import replace_nonfinite
from latentforge.io.text import counted
from latentforge.runs.checkpoint_reader import Checkpoint
from latentforge.seeding import callers_state_kept

HEADER = 2**24  # bytes allowed for names and shapes in a tensor file
LARGEST = 16
"""The size limit of an optimizer's state, in multiples of the parameters' size; Adam needs two."""

STATE_TYPES: dict[str, type] = {
    **dict.fromkeys(("step", "epoch", "closed_step", "best_epoch", "waited", "threads"), int),
    **dict.fromkeys(("history", "course", "outcome", "protocol", "events", "plugins"), dict),
    **dict.fromkeys(("held", "optimizer", "callbacks"), list),
    **dict.fromkeys(("device", "torch"), str),
}
"""The keys of a stored state and their types. The keys are a file format: do not rename them."""


def capture(
    state: TrainingState, environment: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the state as groups of tensors and as JSON values, to which `environment` is added.

    The loss log must be fetched first. Raises RunFailed if a module stores a non-tensor value.
    """
    trainee, ema = state.steps.trainee, state.steps.ema
    log_tensors, log_state = state.steps.log.state()
    optimizer, groups = optimizer_state(state.steps.optimizer)
    tensors = {
        "model": trainee.model.state_dict(),
        "loss": trainee.loss.state_dict(),
        "optimizer": optimizer,
        "history": log_tensors,
    }
    if ema:
        tensors["ema-model"] = ema.trainee.model.state_dict()
        tensors["ema-loss"] = ema.trainee.loss.state_dict()
    for name, value in trainee.state_dict().items():
        if not isinstance(value, Tensor):
            raise RunFailed(
                f"{name} of the model or its loss is a {type(value).__name__}, not a tensor",
                hint="store it in a buffer: a checkpoint contains only tensors",
            )
    values = {
        "step": state.result.steps,
        "epoch": state.result.epochs,
        "closed_step": state.evaluated_step,
        "best_score": state.best.score,
        "best_epoch": state.best.epoch,
        "waited": state.best.waited,
        "history": log_state,
        "held": state.validation_losses,
        "course": asdict(state.warnings),
        "optimizer": groups,
        "outcome": replace_nonfinite({**asdict(state.result), "status": "running", "signal": 0}),
        "protocol": state.protocol,
        "callbacks": callback_states(state),
    }
    return {name: group for name, group in tensors.items() if group}, {**values, **environment}


def plugin_versions(config: RunConfig) -> dict[str, str]:
    """The version of each plugin that a run uses, keyed by `distribution/name`."""
    plugins = [part.entry.plugin for part in config.components()]
    return {"/".join(filter(None, [p.distribution, p.name])): p.version for p in plugins}


def module_bytes(module: nn.Module) -> int:
    """The size of a module's parameters and buffers in bytes."""
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def check_state(saved: Checkpoint) -> None:
    """Raise RunFailed if the state of a checkpoint is from a version that stored too little, or has
    values of wrong types. A checkpoint is untrusted input."""
    if "history" not in saved.state:
        raise RunFailed(
            f"{saved.path} was written by a version that stored too little to resume from",
            hint="start a new run; this one can still be evaluated and explored",
        )
    wrong = [key for key, kind in STATE_TYPES.items() if not isinstance(saved.state.get(key), kind)]
    try:
        restore_result(saved)
        if not all(isinstance(size, int) for size in saved.state["events"].values()):
            wrong.append("events")
    except (TypeError, AttributeError, KeyError):
        wrong.append("outcome")
    if wrong:
        raise RunFailed(
            f"checkpoint {saved.path} is damaged: its state has no valid {wrong[0]!r}",
            hint="--from NAME, with the name of an older checkpoint",
        )


def restore(state: TrainingState, saved: Checkpoint) -> None:
    """Restore the state of a new trainer from `saved`, which `check_state` must have accepted.

    Raises RunFailed if the checkpoint does not match the run.
    """
    stored, steps = saved.state, state.steps
    trainee, ema, limit = steps.trainee, steps.ema, LARGEST * module_bytes(steps.trainee) + HEADER
    groups = {name: saved.tensors(name, limit=limit) for name in saved.groups}
    try:
        # load_state_dict copies in place, so each tensor keeps its memory format
        trainee.model.load_state_dict(groups.get("model", {}))
        trainee.loss.load_state_dict(groups.get("loss", {}))
        if ema:
            ema.trainee.model.load_state_dict(groups.get("ema-model", {}))
            ema.trainee.loss.load_state_dict(groups.get("ema-loss", {}))
        for (component, callback), value in zip(state.callbacks, stored["callbacks"], strict=True):
            if value is not None:  # before the optimizer, to which it may add groups again
                action = f"restoring callback {component.name!r}"
                component.call(action, callback.load_state_dict, value)
        if state.callbacks and len(stored["optimizer"]) != len(steps.optimizer.param_groups):
            raise groups_error(state, saved)
        restore_optimizer(steps.optimizer, groups.get("optimizer", {}), stored["optimizer"])
        steps.log.restore(groups.get("history", {}), stored["history"], steps.device)
        best, steps_done = state.best, state.result.steps
        best.score, best.epoch = stored["best_score"], stored["best_epoch"]
        best.waited = stored["waited"]
        state.validation_losses[:] = stored["held"]
        state.warnings.epoch = stored["course"]["epoch"]
        state.warnings.seen = {
            check: (first, last, Diagnosis(**finding))
            for check, (first, last, finding) in stored["course"]["seen"].items()
        }
        state.evaluated_step = stored["closed_step"]
        state.protocol.update(stored["protocol"])
        # if the run was stopped before the evaluation of an epoch, save again after the evaluation
        unevaluated = steps_done % steps.epoch_length == 0 and state.evaluated_step != steps_done
        state.saved_step = -1 if unevaluated else steps_done
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise RunFailed(
            f"the state of {saved.path} does not fit this run",
            details=[str(error).splitlines()[0]],
            hint="install the versions of LatentForge and of the plugins that run.json lists",
        ) from error


def groups_error(state: TrainingState, saved: Checkpoint) -> RunFailed:
    """Return the error for callbacks that did not add the parameter groups that the optimizer had
    when the checkpoint was saved."""
    before, now = len(saved.state["optimizer"]), len(state.steps.optimizer.param_groups)
    return RunFailed(
        f"the optimizer has {counted(now, 'parameter group')}, in {saved.path} it had {before}",
        details=[
            f"callback {component.name!r} of {component.entry.plugin.title}"
            for component, _ in state.callbacks
        ],
        hint="the callback that adds a group during training must store this in state_dict() and "
        "add the group again in load_state_dict()",
    )


def callback_states(state: TrainingState) -> list[Any]:
    """The state of each callback as a JSON value, None for a callback without `state_dict()`.

    Raises PluginError if a state is not a JSON value, or its callback has no `load_state_dict()`.
    """
    return [
        component.call(f"the state of callback {component.name!r}", _callback_state, callback)
        for component, callback in state.callbacks
    ]


def _callback_state(callback: Any) -> Any:
    state = callback.state_dict() if hasattr(callback, "state_dict") else None
    if state is not None and not hasattr(callback, "load_state_dict"):
        raise TypeError("it has state_dict() but no load_state_dict(state)")
    return json.loads(json.dumps(state, allow_nan=False))


def check_size(
    manifest: Mapping[str, Any], saved: Checkpoint, config: RunConfig, spec: DataSpec
) -> None:
    """Raise RunFailed if the run's configuration describes a larger model than its checkpoint
    contains. The files are untrusted input, and building such a model could use all memory."""
    try:
        # shapes only, without memory; a build may still sample on the CPU or with its own device
        with callers_state_kept(torch.device("cpu")), torch.device("meta"):
            modules = build_modules(config, spec)
    except Exception:  # a build that reads values is not checked: docs/contracts.md, Models
        return
    for module, part in zip(modules, (config.model, config.loss), strict=True):
        stored, expected = saved.size(part.entry.kind.singular), module_bytes(module)
        if stored < expected:
            detail = f"run.json describes {expected} bytes of weights, the checkpoint has {stored}"
            raise mismatch_error(manifest, saved, part, [detail])


def mismatch_error(
    manifest: Mapping[str, Any], saved: Checkpoint, part: Component, details: list[str]
) -> RunFailed:
    """Return the error for weights that do not fit the model: its code or run.json has changed."""
    kind, plugin = part.entry.kind, part.entry.plugin
    trained = [p.get("version") for p in manifest["plugins"] if p["kind"] == kind.plural]
    versions = f": it had version {trained[0]}, now {plugin.version}" if any(trained) else ""
    change = f"the code of plugin {plugin.name} may have changed since the run{versions}"
    return RunFailed(
        f"the weights of {saved.path} do not fit {kind.singular} {part.name!r}",
        details=[*details, change],
        hint="start a new run, or restore the plugin version and the run.json of this one",
    )
