"""Tiny runs, trained in a second, for the checks of explorers, objectives and callbacks."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentforge.conformance.assertions import FACTORS, build_with_defaults, make_batch
from latentforge.conformance.capabilities import roles_of
from latentforge.conformance.subject import CheckSkipped, Subject
from latentforge.contracts import Arrays
from latentforge.errors import UsageError
from latentforge.plugins.registry import Entry
from latentforge.runs.compatibility import resolve_stored_config

if TYPE_CHECKING:
    from latentforge.workflows.load import LoadedRun
    from latentforge.workflows.run import Run

SHAPE = (1, 16, 16)
PREFERRED = ("ae", "vae", "mlp-classifier", "cnn-classifier")  # the cheapest models
TRAIN = {"epochs": 2, "batch_size": 16, "lr": 3e-3, "log_every": 1, "threads": 1, "device": "cpu"}


def images(
    train: int = 60,
    test: int = 15,
    empty: int | None = None,
    labels: bool = True,
    factors: bool = False,
) -> dict[str, Any]:
    """Images of three classes, in the form of `Forge.train(data=...)`. The class `empty` has no
    images. With `labels=False` the data has no labels; with `factors` it has other factors too."""
    data: dict[str, Any] = {"validation": 0.2}
    for split, count, seed in (("train", train, 1), ("test", test, 2)):
        batch = make_batch(SHAPE, count, seed)
        assert batch.y is not None
        x, y = (batch.x * 255).to(torch.uint8), batch.y
        kept = torch.ones_like(y, dtype=torch.bool) if empty is None else y != empty
        x, y = x[kept], y[kept]
        data[split] = (x, y) if labels else x
        if factors:
            named = {f.name: (batch.factors[f.name][kept], f.names or None) for f in FACTORS}
            data[split] = Arrays(x, y if labels else None, factors=named)
    return data


def run_folder_for(subject: Subject) -> Path:
    """Return a path for a run or findings in a new empty folder, because a failed check may leave
    files behind. The folder is deleted with the subject."""

    def make() -> str:
        folder = tempfile.mkdtemp(prefix="latentforge-check-")
        weakref.finalize(subject, shutil.rmtree, folder, ignore_errors=True)
        return folder

    return Path(tempfile.mkdtemp(dir=subject.once("scratch", make))) / "run"


def run_with(subject: Subject, needs: Set[str], case: str = "whole", **data: Any) -> Run:
    """A run whose model provides `needs`, trained on `images(**data)`, with factors if the
    component reads them."""
    model = model_with(subject, needs).reference

    def train() -> Run:
        factors = getattr(subject.entry.spec, "factors", False)
        inputs, out = images(**data, factors=factors), run_folder_for(subject)
        return subject.forge.train(model, data=inputs, train=TRAIN, run=out, quiet=True)

    return subject.once(f"run {model} {case}", train)


def model_with(subject: Subject, needs: Set[str], shape: tuple[int, ...] = SHAPE) -> Entry:
    """The first model that provides `needs` and supports the shape. Models of the component's
    plugin come first, then those that are not conditional, then the cheapest ones. Raises
    CheckSkipped if there is none."""

    def order(entry: Entry) -> tuple[bool, bool, int, str]:
        position = PREFERRED.index(entry.name) if entry.name in PREFERRED else len(PREFERRED)
        conditional = "conditional" in entry.provides
        return entry.plugin is not subject.entry.plugin, conditional, position, entry.name

    refusal = ""
    for entry in sorted(subject.forge.registry.entries("models"), key=order):
        if needs <= entry.provides:
            try:
                build_with_defaults(entry, shape)
            except UsageError as error:
                refusal = f" and supports images of {shape}: {error.message}"
            else:
                return entry
    raise CheckSkipped(f"no installed model provides {', '.join(sorted(needs))}{refusal}")


def other_runs(subject: Subject, **data: Any) -> dict[str, Any]:
    """A run for each role that a component requires."""
    return {role: run_with(subject, needs, **data) for role, needs in roles_of(subject).items()}


def load_tiny_run(subject: Subject) -> LoadedRun:
    """A tiny run and the runs of its roles, loaded in the same way as for an explorer."""
    from latentforge.workflows.load import load_run

    registry = subject.forge.registry
    run = run_with(subject, getattr(subject.entry.spec, "needs", set()) or {"encode", "decode"})
    config, others = resolve_stored_config(registry, run), other_runs(subject)
    roles = {
        role: (other, resolve_stored_config(registry, other)) for role, other in others.items()
    }
    return load_run(run, config, roles=roles, checkpoint="last", device="cpu", data=None)


def role_models(subject: Subject, loaded_run: LoadedRun) -> list[tuple[Any, Set[str], Set[str]]]:
    """Return the model, its capabilities and the needed capabilities of each role."""
    models: list[tuple[Any, Set[str], Set[str]]] = []
    for role, needs in roles_of(subject).items():
        other = loaded_run.roles[role]
        config = resolve_stored_config(subject.forge.registry, other.run)
        models.append((other.model, config.model.entry.provides, needs))
    return models
