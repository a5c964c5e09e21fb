"""A real StepRunner whose training images are one batch, for tests of single steps."""

from __future__ import annotations

from typing import Any

import torch

from latentforge import DataSpec
from latentforge.config.schema import Component, DataConfig, RunConfig, TrainConfig
from latentforge.contracts import Batch
from latentforge.data.images import ImageSplit
from latentforge.engine.finite import FiniteGate
from latentforge.engine.step import StepRunner, Trainee


def runner_of(
    trainee: Trainee,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None = None,
    gate: FiniteGate | None = None,
    **train: Any,
) -> StepRunner:
    """`train` are keys of [train]; `optimizer` and `gate` replace those that follow from them."""
    images = ImageSplit(batch.x, batch.y, DataSpec(tuple(batch.x.shape[1:]), "vector"))
    unused: Any = Component(None, None)  # type: ignore[arg-type]  # no plugin offers these modules
    config = RunConfig(unused, unused, None, DataConfig(), TrainConfig(**train))
    runner = StepRunner(trainee, images, config, torch.device("cpu"))
    if optimizer:
        runner.optimizer, runner.update = optimizer, optimizer.step
        runner.parameters = [p for group in optimizer.param_groups for p in group["params"]]
    runner.gate = gate or runner.gate
    return runner
