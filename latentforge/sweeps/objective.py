"""Which figure a search optimizes: one of the validation split that every training has."""

from __future__ import annotations

from collections.abc import Sequence

from latentforge.config.schema import RunConfig
from latentforge.config.selection import training_measures
from latentforge.data.splits import DataSplits
from latentforge.errors import UsageError, did_you_mean
from latentforge.plugins.registry import Registry

SPLIT = "validation"


def check_objective(wanted: str, changed: Sequence[str]) -> str:
    """The name of the figure that is wanted, `elbo` or `validation/elbo`; UsageError for figures by
    which no search may choose, such as the loss where the space has `changed` it."""
    split, slash, name = wanted.partition("/")
    if slash and split in ("test", "train"):
        why = (
            "a figure of test images that chose the model is no longer one of unseen images"
            if split == "test"
            else "figures of images that were trained on say nothing of others"
        )
        raise UsageError(f"objective {wanted}: {why}", remedy=f"--objective {SPLIT}/{name}")
    name = wanted.removeprefix(f"{SPLIT}/").rpartition("/")[2].replace("-", "_")
    if name == "loss" and changed:
        raise UsageError(
            f"objective loss: the space changes {', '.join(changed)}, "
            "and values of different losses do not compare",
            remedy="--objective elbo, or another figure that does not depend on the loss",
        )
    return name


def figure_of(
    registry: Registry, config: RunConfig, splits: DataSplits, name: str
) -> tuple[str, str]:
    """`validation/<figure>` and which way is better. UsageError where there is no such split, or
    trainings do not have the figure."""
    monitor, measures = training_measures(registry, config, splits.spec.classes, splits.splits)
    if SPLIT not in splits.splits:
        raise UsageError(
            "a search goes by a validation split, and there is none",
            remedy="--set data.validation=0.1",
        )
    found = {m.name.replace("-", "_"): m.entry.spec.better for m in (monitor, *measures)}
    if name in found:
        return f"{SPLIT}/{name}", found[name]
    others = {entry.name.replace("-", "_"): entry.name for entry in registry.entries("measures")}
    if name in others:
        raise UsageError(
            f"objective {name}: not measured while training",
            remedy=f"--set train.monitor={others[name]}",
        )
    raise UsageError(
        f"objective {name}: no such figure",
        remedy=did_you_mean(name, list(found)) or f"choose from {', '.join(found)}",
    )
