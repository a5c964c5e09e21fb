"""Groups the members of a sweep that may be trained together, by settings. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from latentforge.config.schema import RunConfig, TrainConfig

LARGEST = 32  # members of one group; larger groups are no faster and use more memory
FREE = ("lr", "seed")  # keys of [train] that may differ; of [loss], every float may differ

ALONE: dict[str, str] = {
    "accumulate": "train.accumulate splits its batches",
    "clip_grad_norm": "train.clip_grad_norm needs the norm of all of its gradients",
    "ema": "train.ema averages its weights",
    "checkpoint_every": "train.checkpoint_every saves in mid-epoch",
    "checkpoint_seconds": "train.checkpoint_seconds saves in mid-epoch",
    "precision": "train.precision is not float32",
    "compile": "train.compile is on",
}
"""Settings that prevent grouping unless they have their default, and the reason."""


def groups_of(configs: Sequence[RunConfig]) -> tuple[list[list[int]], dict[int, str]]:
    """Groups of two or more indices that may be trained together; a reason for each other index."""
    alike: dict[str, list[int]] = {}
    reasons = {}
    for place, config in enumerate(configs):
        if reason := keeps_alone(config):
            reasons[place] = reason
        else:
            alike.setdefault(shared_settings(config), []).append(place)
    groups = []
    for places in alike.values():
        for start in range(0, len(places), LARGEST):
            part = places[start : start + LARGEST]
            if len(part) > 1:
                groups.append(part)
            else:
                reasons[part[0]] = "no other member differs from it only in numbers"
    return groups, reasons


def keeps_alone(config: RunConfig) -> str:
    default = TrainConfig()
    if config.callbacks:
        return "its callbacks observe every step"
    for key, reason in ALONE.items():
        if getattr(config.train, key) != getattr(default, key):
            return reason
    return "train.cuda_graph is on" if config.train.cuda_graph == "on" else ""


def shared_settings(config: RunConfig) -> str:
    """The settings that members of one group must have in common, as JSON."""
    told: dict[str, Any] = config.as_dict()
    train = {key: value for key, value in told["train"].items() if key not in FREE}
    loss = {key: value for key, value in told["loss"].items() if not isinstance(value, float)}
    return json.dumps({**told, "train": train, "loss": loss}, sort_keys=True, default=str)
