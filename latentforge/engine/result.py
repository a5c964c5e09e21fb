"""How far a training came, for whoever started it; also where it ended in an error."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentforge.engine.diagnostics import Finding
from latentforge.runs.checkpoint_reader import Checkpoint


@dataclass
class Outcome:
    """How far a training came. `seconds` is training time: start-up and evaluation are left out."""

    status: str = "running"
    epochs: int = 0  # completed ones
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    per_dim: dict[str, list[float]] = field(default_factory=dict)  # of the last epoch
    best: dict[str, float] = field(default_factory=dict)  # the best epoch and its figure
    stopped: str = ""  # why the training ended early, if it did
    signal: int = 0  # what asked for the end: SIGINT or SIGTERM
    findings: list[Finding] = field(default_factory=list)  # what looked wrong on the way

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


def outcome_of(saved: Checkpoint) -> Outcome:
    """How far the training had come that wrote a checkpoint, for one that goes on from there."""
    kept = dict(saved.state.get("outcome", {}))
    findings = [Finding(**finding) for finding in kept.pop("findings", [])]
    return Outcome(**kept, findings=findings)
