"""Checks which settings of a stored run a resume may change."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from latentforge.config.schema import RunConfig
from latentforge.errors import ConfigError, RunFailed
from latentforge.io.paths import replace_nonfinite

CHANGEABLE = {
    *("train.threads", "train.log_every", "train.checkpoint_every", "train.checkpoint_seconds"),
    *("data.stream", "data.workers"),
}
"""Settings that a resumed run may change. They do not change its result, except for the number of
threads, which may change the last bits; a changed number is reported."""


def check_changes(
    stored: Mapping[str, Any], config: RunConfig, requested_keys: Collection[str] = ()
) -> None:
    """Raise a ConfigError that lists each setting of `config` that differs from the `stored`
    setting of the run and could change its result.

    A key that the run does not store is considered unchanged, unless it is in `requested_keys`.
    Paths in the options of the dataset may change, because the fingerprint identifies the data.
    """
    before, after = flatten(stored), flatten(config.as_dict())
    epochs = stored["train"].get("epochs", config.train.epochs)
    refused = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        name = key.partition(".")[2]
        requested = any(key == prefix or key.startswith(f"{prefix}.") for prefix in requested_keys)
        named = name == "name" or key == "callbacks"  # a name may be qualified or not
        not_requested_now = not requested and (named or key not in before)
        if old == new or key in CHANGEABLE or not_requested_now:
            continue
        if is_path(config, key) and not (requested and key.startswith("roles.")):
            continue
        if key != "train.epochs" or type(epochs) is not int:  # run.json may be damaged
            refused.append(f"{key}: {json.dumps(old)} in the run, not {json.dumps(new)}")
        elif config.train.epochs < epochs:
            refused.append(f"{key}: it can be raised from {old}, but not lowered to {new}")
    if refused:
        hint = (
            "start a new run for other settings; docs/reliability.md lists what a resume may change"
        )
        if all(line.startswith("sampler.") for line in refused):
            hint = "use `latentforge evaluate` with other inference options, or train a new run"
        raise ConfigError(
            "a resumed run must use its original settings", details=refused, hint=hint
        )


def is_path(config: RunConfig, key: str) -> bool:
    """Whether a key of the configuration is the folder of another run, which a run has copied, or
    an option of the dataset that contains a path."""
    section, _, name = key.partition(".")
    if section == "roles":
        return True
    dataset = config.dataset.options if config.dataset else None
    return section == "data" and isinstance(getattr(dataset, name, None), Path)


def find_edits(config: RunConfig, saved: Any) -> list[str]:
    """Describe each setting of `config`, from run.json, that differs from the one in `saved`, the
    configuration in a checkpoint (None in an older one). Settings that a resume may change are not
    compared."""
    before = flatten(saved) if isinstance(saved, Mapping) else {}
    now = flatten(replace_nonfinite(config.as_dict()))
    ignored = {"train.epochs", "callbacks", *CHANGEABLE}
    edits = []
    for key in sorted(before.keys() & now.keys() - ignored):
        old, new = before[key], now[key]
        if key.endswith(".name"):  # a name may be qualified or not
            old, new = (str(name).rpartition("/")[2] for name in (old, new))
        if old != new and not is_path(config, key):
            edits.append(f"{key}: {json.dumps(new)} in run.json, {json.dumps(old)} in training")
    return edits


def find_data_edits(about: Mapping[str, Any], saved: Any) -> list[str]:
    """Describe the differences between the section data of run.json and the data in a checkpoint
    (None in an older one)."""
    before = saved if isinstance(saved, Mapping) else {}
    values = about.get("preprocessing", {}).get("range", [0.0, 1.0])
    now = {"shape": about["shape"], "classes": about["classes"], "range": values}
    now["factors"] = about.get("factors", [])  # older runs have none
    now["normalize"] = about.get("preprocessing", {}).get("normalize")
    return [
        f"data.{key}: {json.dumps(value)} in run.json, {json.dumps(before[key])} in training"
        for key, value in now.items()
        if key in before and before[key] != value
    ]


def check_unedited(
    config: RunConfig,
    state: Mapping[str, Any],
    about: Mapping[str, Any],
    run: Path,
    checkpoint: str,
) -> None:
    """Raise RunFailed if run.json has other settings, or describes other data (`about`), than the
    training before `checkpoint` with the state `state`."""
    edits = [*find_edits(config, state.get("config")), *find_data_edits(about, state.get("data"))]
    if edits:
        raise RunFailed(
            f"{run}/run.json was edited after checkpoint {checkpoint} was written",
            details=edits,
            hint="restore these values in run.json, or start a new run for other settings",
        )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to keys such as `section.outer.inner`; callbacks stay one list."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        inner = isinstance(value, Mapping)
        result |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return result
