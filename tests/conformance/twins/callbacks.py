"""A good callback, and twins of it."""

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Events

from latentforge import CallbackSpec

from .common import GoodConfig, meddle


class Watch:
    def __init__(self, config):
        self.seen = 0

    def attach(self, engines):
        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def count():
            self.seen += 1
            engines.log("seen", float(self.seen))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def callback(cls=Watch, **changes):
    spec = {"name": "good", "summary": "Counts", "build": cls, "config": GoodConfig}
    return CallbackSpec(**{**spec, **changes})


class Breaks(Watch):
    def attach(self, engines):
        raise AttributeError("no such engine")


class Jitters(Watch):
    def attach(self, engines):
        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def jitter():
            draw = np.random.default_rng()
            with torch.no_grad():
                for value in engines.model.parameters():
                    value.mul_(1 + 0.01 * draw.random())


class Decays:
    """Shrinks the weights more in each epoch, and does not save the number of epochs."""

    def __init__(self, config):
        self.seen = 0

    def attach(self, engines):
        @engines.trainer.on(Events.EPOCH_COMPLETED)
        def shrink():
            self.seen += 1
            with torch.no_grad():
                for value in engines.model.parameters():
                    value.mul_(1 - 0.01 * self.seen)


class NoJson(Watch):
    def state_dict(self):
        return {"seen": torch.zeros(1)}


class MeddlingWatch(Watch):
    def attach(self, engines):
        super().attach(engines)
        meddle()


class EndsAfterOneStep(Watch):
    def attach(self, engines):
        engines.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), self.end, engines)

    def end(self, engines):
        engines.trainer.terminate()


class NoLoadState:
    def __init__(self, config):
        pass

    def attach(self, engines):
        pass

    def state_dict(self):
        return {"seen": 1}


CALLBACKS = {
    "it attaches and trains": [callback(Breaks), callback(EndsAfterOneStep)],
    "the same seed gives the same weights": [callback(Jitters)],
    "a resumed run ends with the same weights": [callback(Decays)],
    "its state is json": [callback(NoJson), callback(NoLoadState)],
    "global state is unchanged": [callback(MeddlingWatch)],
}
