"""A stop in the middle of a training, as Ctrl-C makes one: for checks of what must outlast it."""

from __future__ import annotations

from ignite.engine import Events

from latentforge.contracts import Engines


class StopOnce:
    """A callback that ends the training when its second epoch begins, the first time."""

    def __init__(self) -> None:
        self.stopped = False

    def attach(self, engines: Engines) -> None:
        engines.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), self.stop)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            raise KeyboardInterrupt
