"""TrainingState and TrainingResult: the state and the results of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from latentforge.config.schema import Component
from latentforge.engine.best_checkpoint import BestCheckpoint
from latentforge.engine.diagnostics import Diagnosis, WarningHistory
from latentforge.engine.step import StepRunner
from latentforge.runs.checkpoint_reader import Checkpoint


@dataclass
class TrainingResult:
    """Progress and results of a run. `seconds` excludes start-up and evaluation."""

    status: str = "running"
    epochs: int = 0  # completed epochs
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    per_dim: dict[str, list[float]] = field(default_factory=dict)  # of the last epoch
    best: dict[str, float] = field(default_factory=dict)  # the best epoch and its metric
    stopped: str = ""  # why training ended early, if it did
    signal: int = 0  # the signal that ended training: SIGINT or SIGTERM
    findings: list[Diagnosis] = field(default_factory=list)  # of the diagnostics

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


def restore_result(saved: Checkpoint) -> TrainingResult:
    """Return the result that a checkpoint contains, for a run that resumes from it."""
    stored = dict(saved.state.get("outcome", {}))
    findings = [Diagnosis(**finding) for finding in stored.pop("findings", [])]
    return TrainingResult(**stored, findings=findings)


@dataclass
class TrainingState:
    """The state of a run during training. `steps` contains the weights, the optimizer and the loss
    log of the epoch."""

    steps: StepRunner
    best: BestCheckpoint
    result: TrainingResult
    callbacks: list[tuple[Component, Any]] = field(default_factory=list)
    warnings: WarningHistory = field(default_factory=WarningHistory)
    validation_losses: list[float] = field(default_factory=list)  # of each epoch
    protocol: dict[str, str] = field(default_factory=dict)  # of each metric
    evaluated_step: int = -1  # the last step whose epoch was evaluated and recorded
    saved_step: int = -1
