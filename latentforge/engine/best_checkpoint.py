"""Chooses the best checkpoint by a validation metric, and decides on early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping

from latentforge.config.schema import TrainConfig
from latentforge.errors import UsageError
from latentforge.io.text import counted
from latentforge.plugins.registry import Entry


class BestCheckpoint:
    """Compares epochs by `metric`. A value of NaN is never an improvement.

    `score` is the best value so far, `epoch` its epoch, `waited` the number of epochs since.
    """

    def __init__(self, train: TrainConfig, monitor: Entry) -> None:
        self.metric = monitor.name.replace("-", "_")
        self.patience, self.min_delta = train.patience, train.min_delta
        self.sign = 1.0 if monitor.spec.better == "lower" else -1.0
        self.score: float | None = None
        self.epoch = 0
        self.waited = 0

    def update(self, metrics: Mapping[str, float], epoch: int) -> bool:
        """Return whether this is the best epoch so far. Raises UsageError if `metrics` does not
        contain the monitored metric."""
        if self.metric not in metrics:
            raise UsageError(
                f"train.monitor: the validation split has no metric {self.metric!r}",
                details=[f"available: {', '.join(metrics)}"],
                hint="--set train.monitor=loss",
            )
        value = metrics[self.metric]
        best = math.inf if self.score is None else self.sign * self.score
        margin = 0.0 if self.score is None else self.min_delta
        if self.sign * value < best - margin:  # False for NaN
            self.score, self.epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without an improvement. False if it is 0."""
        return 0 < self.patience <= self.waited

    def reason(self) -> str:
        """Describe for the user why training stops early."""
        detail = "it was never finite"
        if self.score is not None:
            detail = f"best {self.score:.6g} in epoch {self.epoch}"
        waited = counted(self.waited, "epoch")
        return f"validation {self.metric} has not improved for {waited} ({detail})"
