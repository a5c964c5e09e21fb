"""Groups the members of a sweep whose settings allow training them together. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from latentforge.config.schema import RunConfig, TrainConfig

MAX_GROUP_SIZE = 32  # maximum group size; larger groups are no faster and use more memory
MAY_DIFFER = ("lr", "seed")  # keys of [train] that may differ; floats of [loss] may differ too

NOT_GROUPED: dict[str, str] = {
    "accumulate": "train.accumulate splits the batches",
    "clip_grad_norm": "train.clip_grad_norm needs the norm of each member's gradients",
    "ema": "train.ema averages the weights",
    "checkpoint_every": "train.checkpoint_every saves in mid-epoch",
    "checkpoint_seconds": "train.checkpoint_seconds saves in mid-epoch",
    "precision": "train.precision is not float32",
    "compile": "train.compile is on",
}
"""Settings that prevent grouping unless they have their default, and the reason."""


def group_members(configs: Sequence[RunConfig]) -> tuple[list[list[int]], dict[int, str]]:
    """Return groups of two or more indices that may be trained together, and a reason for each
    remaining index."""
    by_key: dict[str, list[int]] = {}
    reasons = {}
    for index, config in enumerate(configs):
        if reason := find_obstacle(config):
            reasons[index] = reason
        else:
            by_key.setdefault(group_key(config), []).append(index)
    groups = []
    for indices in by_key.values():
        for start in range(0, len(indices), MAX_GROUP_SIZE):
            part = indices[start : start + MAX_GROUP_SIZE]
            if len(part) > 1:
                groups.append(part)
            else:
                reasons[part[0]] = "no other member differs only in numeric options"
    return groups, reasons


def find_obstacle(config: RunConfig) -> str:
    default = TrainConfig()
    if config.callbacks:
        return "callbacks observe every step"
    if config.roles:
        return "a member uses another run"
    for key, reason in NOT_GROUPED.items():
        if getattr(config.train, key) != getattr(default, key):
            return reason
    return "train.cuda_graph is on" if config.train.cuda_graph == "on" else ""


def group_key(config: RunConfig) -> str:
    """The settings that members of one group must have in common, as JSON."""
    settings: dict[str, Any] = config.as_dict()
    train = {key: value for key, value in settings["train"].items() if key not in MAY_DIFFER}
    loss = {key: value for key, value in settings["loss"].items() if not isinstance(value, float)}
    return json.dumps({**settings, "train": train, "loss": loss}, sort_keys=True, default=str)
