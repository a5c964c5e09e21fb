"""Runs steps whose forward pass is compiled by torch.compile (`train.compile`)."""

from __future__ import annotations

import logging
from typing import Any

import torch

from latentforge.contracts import Step, Terms
from latentforge.engine.step import StepRunner

log = logging.getLogger("latentforge")


class LaterStep(Step):
    """A step after the first. A loss may inspect its input only in the first step. `first` does not
    depend on the step number, so one compiled or vmapped step represents all later steps."""

    @property
    def first(self) -> bool:
        return False


class NumberRead(Exception):
    """The loss reads the step number, so one compiled step cannot represent all steps."""


class NumberlessStep(Step):
    """A step that raises NumberRead if a loss reads its number."""

    first = False

    def __getattribute__(self, name: str) -> object:
        if name in ("index", "epoch"):
            raise NumberRead(f"the loss reads step.{name}, which changes with each step")
        return super().__getattribute__(name)


class CompiledStep(StepRunner):
    """Compiles the forward pass before the first step, unless the loss reads the step number:
    torch would recompile the loss for each number and give up after a few."""

    compiled: bool | None = None  # None until the first step

    def run(self, done: int) -> Terms:
        if self.compiled is None:
            self.call(done, self._compile, done)
        return super().run(done)

    def _compile(self, done: int) -> None:
        probe = NumberlessStep(done, self.total_steps, len(self.images), self.epoch_length)
        self.noise.reseed(done)
        try:
            self.trainee.eval()  # so that modules store no statistics of the batch
            with torch.no_grad():
                self.trainee.forward(self.load_batch(self.index(done)), probe)
        except NumberRead as reason:
            self.compiled = False
            log.warning("train.compile is ignored: %s", reason)
        else:
            self.compiled = True
            self.trainee.compile(dynamic=False)
        finally:
            self.trainee.train()

    def step_at(self, done: int) -> Step:
        kind = LaterStep if done else Step
        return kind(done, self.total_steps, len(self.images), self.epoch_length)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "compile": self.compiled is not False}
