"""What a callback promises: it is there when it is asked for, and no run is less exact for it."""

from __future__ import annotations

import json
from typing import Any

import torch

from latentforge.checkpoint import CheckpointStore
from latentforge.conformance.subject import CheckFailed, Subject, require
from latentforge.conformance.tiny import TRAIN, images, model_with, scratch_of
from latentforge.conformance.trying import nothing_global_changed

EPOCHS = 3


def it_attaches_and_trains(subject: Subject) -> None:
    run = trained(subject, "plain")
    require(
        run.status == "done" and run.manifest["epochs"] >= 1,
        f"the run ends as {run.status} after {run.manifest['epochs']} epochs",
        "add handlers to engines.trainer in attach, and let the training go on",
    )


def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    same(trained(subject, "plain"), trained(subject, "again"), "a second time")


def a_resumed_run_ends_with_the_same_weights(subject: Subject) -> None:
    """One that goes on after its first epoch, as after a stop."""
    run = trained(subject, "stopped", epochs=1)
    resumed = subject.forge.resume(run, train={"epochs": EPOCHS}, quiet=True)
    same(trained(subject, "plain"), resumed, "stopped after an epoch and gone on with")


def its_state_is_json(subject: Subject) -> None:
    callback = subject.entry.spec.build(subject.config)
    if not hasattr(callback, "state_dict"):
        return
    try:
        json.dumps(callback.state_dict())
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"state_dict() is no JSON: {error}", "numbers, texts and lists") from None
    require(
        callable(getattr(callback, "load_state_dict", None)),
        "it has state_dict and no load_state_dict",
        "write both",
    )


def nothing_global_is_changed(subject: Subject) -> None:
    trained(subject, "plain")  # whose imports may set something up
    with nothing_global_changed("training with it"):
        trained(subject, "once more")


CHECKS = (
    it_attaches_and_trains,
    the_same_seed_gives_the_same_weights,
    a_resumed_run_ends_with_the_same_weights,
    its_state_is_json,
    nothing_global_is_changed,
)


def trained(subject: Subject, what: str, epochs: int = EPOCHS) -> Any:
    """A tiny run with the callback."""

    def train() -> Any:
        return subject.forge.train(
            model_with(subject, {"encode", "decode"}).reference,
            data=images(),
            train={**TRAIN, "epochs": epochs},
            callbacks=[{"name": subject.entry.reference, **subject.options}],
            run=scratch_of(subject) / what.replace(" ", "-"),
            quiet=True,
        )

    return subject.once(f"trained {what}", train)


def same(one: Any, other: Any, how: str) -> None:
    """CheckFailed where two runs have other weights."""
    first, second = (weights_of(run) for run in (one, other))
    differ = [name for name, value in first.items() if not torch.equal(value, second[name])]
    require(
        not differ,
        f"{how}, the run has another {', '.join(differ[:3])}",
        "what it keeps goes into state_dict() and load_state_dict(); what it draws, from torch's "
        "default generator; and what it does depends on trainer.state alone",
    )


def weights_of(run: Any) -> dict[str, torch.Tensor]:
    return CheckpointStore(run.path / "checkpoints").load().tensors("model")
