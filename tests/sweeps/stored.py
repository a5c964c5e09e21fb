"""Readers for the stored files of sweeps and searches, and a wait for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def wait_until(happened: Callable[[], bool]) -> None:
    """Waits for a minute at most."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def trials_of(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    """Returns the trials of a study from its Optuna storage."""
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()
