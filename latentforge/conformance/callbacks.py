"""Contract checks for callbacks: they attach, and runs stay reproducible."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentforge.conformance.examples import images
from latentforge.conformance.fixtures import (
    TRAIN,
    run_folder_for,
    run_host,
    run_needs,
)
from latentforge.conformance.global_state import require_no_global_change
from latentforge.conformance.subject import (
    CheckFailed,
    CheckSkipped,
    Subject,
    rejected_run,
    require,
)
from latentforge.contracts import Engines
from latentforge.errors import Interrupted, UsageError
from latentforge.io.text import counted
from latentforge.plugins.registry import Entry, Registry
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.specs import KINDS, CallbackSpec

if TYPE_CHECKING:
    from ignite.engine import Engine

EPOCHS = 3
STOP = "conformance-stop"


def it_attaches_and_trains(subject: Subject) -> None:
    run = _first_run(subject)
    epochs = run.manifest["epochs"]
    saw = f"the run has status {run.status} after {counted(epochs, 'epoch')}"
    hint = "add handlers to engines.trainer in attach, and do not end the run"
    require(run.status == "done" and epochs >= 1, saw, hint)


def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    _require_same_weights(_first_run(subject), _train(subject), "in a second run")


def a_resumed_run_ends_with_the_same_weights(subject: Subject) -> None:
    """The run is interrupted after its first epoch and then resumed."""
    uninterrupted = _first_run(subject)
    folder, forge = run_folder_for(subject), _forge_that_stops(subject)
    try:
        _train(subject, forge, folder, STOP)
    except Interrupted:
        data = images(run_host(subject, run_needs(subject)).examples)
        resumed = forge.resume(folder, data=data, quiet=True)
        _require_same_weights(uninterrupted, resumed, "after an interruption and a resume")
    else:
        raise CheckSkipped("it ends the run before a second epoch begins")


def its_state_is_json(subject: Subject) -> None:
    callback = subject.entry.spec.build(subject.config)
    if not hasattr(callback, "state_dict"):
        return
    try:
        json.dumps(callback.state_dict())
    except (TypeError, ValueError) as error:
        saw = f"state_dict() is not JSON: {error}"
        raise CheckFailed(saw, "use numbers, strings and lists") from None
    loads = callable(getattr(callback, "load_state_dict", None))
    require(loads, "it has state_dict but no load_state_dict", "define both")


def global_state_is_unchanged(subject: Subject) -> None:
    with require_no_global_change("training with it", first=lambda: _first_run(subject)):
        _train(subject)


def _train(subject: Subject, forge: Any = None, folder: Path | None = None, *extra: str) -> Any:
    """Train a tiny run with the callback and with the callbacks named in `extra`."""
    host = run_host(subject, run_needs(subject))
    callback = {"name": subject.entry.reference, **subject.options}
    try:
        return (forge or subject.forge).train(
            host.entry.reference,
            data=images(host.examples),
            model=subject.options_of(host.entry),
            train={**TRAIN, "epochs": EPOCHS},
            callbacks=[callback, *extra],
            run=folder or run_folder_for(subject),
            quiet=True,
        )
    except UsageError as error:
        raise rejected_run(error) from None


def _first_run(subject: Subject) -> Any:
    return subject.once("trained", lambda: _train(subject))


class StopOnce:
    """A callback that interrupts a run once, as Ctrl-C does, before the second epoch."""

    stopped = False

    def attach(self, engines: Engines) -> None:
        # an event of Ignite equals its name; this layer must not import Ignite
        engines.trainer.add_event_handler("EPOCH_STARTED", self.stop)

    def stop(self, trainer: Engine) -> None:
        if trainer.state.epoch == 2 and not self.stopped:
            self.stopped = True
            raise KeyboardInterrupt


def _forge_that_stops(subject: Subject) -> Any:
    """A copy of the subject's Forge with the callback StopOnce."""
    registry, callback = subject.forge.registry, StopOnce()
    spec = CallbackSpec(name=STOP, summary="Stops", build=lambda _config: callback)
    added = Entry(KINDS["callbacks"], spec, subject.entry.plugin)
    forge = copy(subject.forge)
    forge.registry = Registry(registry.plugins, [*registry.components, added], registry.observers)
    return forge


def _require_same_weights(one: Any, other: Any, how: str) -> None:
    stores = (CheckpointStore(run.path / "checkpoints") for run in (one, other))
    first, second = (store.load().tensors("model") for store in stores)
    differ = [name for name, value in first.items() if not torch.equal(value, second[name])]
    hint = (
        "store its state in state_dict() and load_state_dict(), use torch's default generator, "
        "and depend only on trainer.state"
    )
    require(not differ, f"weights differ {how}: {', '.join(differ[:3])}", hint)
