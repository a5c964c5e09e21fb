"""Which epoch is the best by a validation figure, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from latentforge.config.schema import TrainConfig
from latentforge.errors import UsageError
from latentforge.plugins.registry import Entry


class Selection:
    """Judges each epoch by `figure`; NaN is never better, and counts as an epoch without progress.

    `best` is the best value so far, `epoch` when it was reached, `waited` the epochs since.
    """

    def __init__(self, train: TrainConfig, monitor: Entry) -> None:
        self.figure = monitor.name.replace("-", "_")
        self.patience, self.min_delta = train.patience, train.min_delta
        self.sign = 1.0 if monitor.spec.better == "lower" else -1.0
        self.best: float | None = None
        self.epoch = 0
        self.waited = 0

    def judge(self, figures: Mapping[str, float], epoch: int) -> bool:
        """Whether this epoch is the best so far. UsageError where the figure is not there."""
        if self.figure not in figures:
            raise UsageError(
                f"train.monitor: no figure {self.figure!r} on the validation split",
                details=[f"there are {', '.join(figures)}"],
                remedy="--set train.monitor=loss",
            )
        value = figures[self.figure]
        best = math.inf if self.best is None else self.sign * self.best
        margin = 0.0 if self.best is None else self.min_delta
        if self.sign * value < best - margin:  # no for NaN
            self.best, self.epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return 0 < self.patience <= self.waited

    def reason(self) -> str:
        """Why the training ends early, for people."""
        since = (
            "none at all" if self.best is None else f"best {self.best:.6g} in epoch {self.epoch}"
        )
        return f"no better validation {self.figure} for {self.waited} epochs ({since})"
