"""A callback that stops a run, as a scheduler or a user does."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from ignite.engine import Events

from latentforge import CallbackSpec


@dataclass(frozen=True)
class StopConfig:
    """Where the process is asked to end: after a step or after an epoch (0: never)."""

    step: int = 0
    epoch: int = 0
    how: str = "SIGTERM"


class Stop:
    """Sends a signal as a scheduler does, and counts steps, which a checkpoint stores."""

    def __init__(self, config: StopConfig) -> None:
        self.config, self.seen = config, 0

    def attach(self, engines):
        number = getattr(signal, self.config.how, None)

        @engines.trainer.on(Events.ITERATION_COMPLETED)
        def after_step(engine):
            self.seen += 1
            if engine.state.iteration == self.config.step:
                signal.raise_signal(number) if number else engine.terminate()

        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def after_epoch(engine):
            engines.log("seen", float(self.seen))
            if engine.state.epoch == self.config.epoch:
                signal.raise_signal(number)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


STOP = CallbackSpec(name="stop", summary="Stops", build=Stop, config=StopConfig)
