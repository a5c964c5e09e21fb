"""Which settings a resumed run may change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentforge.config.schema import RunConfig
from latentforge.errors import ConfigError

FREE = {
    *("train.threads", "train.log_every", "train.checkpoint_every", "train.checkpoint_seconds"),
    *("data.stream", "data.workers"),
}
"""Settings that a resumed run may change: they do not move its result. Threads move its last bits,
which is said."""


def check_changes(was: RunConfig, config: RunConfig) -> None:
    """ConfigError that names each setting that is not the run's own and could move its result."""
    before, after = flat(was.as_dict()), flat(config.as_dict())
    dataset = config.dataset.options if config.dataset else None
    refused = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        name = key.partition(".")[2]
        # where the data lies is not what it is, which its fingerprint says
        moved = key.startswith("data.") and isinstance(getattr(dataset, name, None), Path)
        if old == new or key in FREE or moved:
            continue
        if key != "train.epochs":
            refused.append(f"{key}: {json.dumps(old)} in the run, not {json.dumps(new)}")
        elif config.train.epochs < was.train.epochs:
            refused.append(f"{key}: it can be raised, from {old}, and not lowered to {new}")
    if refused:
        raise ConfigError(
            "a run goes on with the settings that it began with",
            details=refused,
            remedy="a new run with the others; what may change here is said in docs/reliability.md",
        )


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by `section.key` and `section.outer.inner`, and the callbacks as one."""
    found: dict[str, Any] = {}

    def add(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                add(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = value

    add(config, "")
    return found
