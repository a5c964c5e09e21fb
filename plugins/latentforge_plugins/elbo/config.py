"""Options of elbo."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le

from latentforge import NonNegative, Size
from latentforge_plugins.reconstruction.config import ReconstructionConfig


@dataclass(frozen=True)
class ElboConfig(ReconstructionConfig):
    """The likelihood's options, as those of `reconstruction`."""


@dataclass(frozen=True)
class BetaElboConfig(ElboConfig):
    """`beta` weighs the KL. With `schedule` linear it grows from 0 between `start_epoch` and
    `end_epoch`; with cyclic it does so in each of `cycles` equal parts of that time, during the
    share `ramp` of it, and then stays. Epochs may have fractions.

    `capacity` C > 0, in nats, takes |KL - C| in place of the KL; C grows from 0 during
    `capacity_epochs`.
    """

    beta: NonNegative = 4.0
    schedule: Literal["constant", "linear", "cyclic"] = "constant"
    start_epoch: NonNegative = 0.0
    end_epoch: NonNegative = 10.0
    cycles: Size = 4
    ramp: Annotated[float, Gt(0), Le(1)] = 0.5
    capacity: NonNegative = 0.0
    capacity_epochs: NonNegative = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule != "constant" and self.end_epoch < self.start_epoch:
            raise ValueError(
                f"the schedule of beta ends before it starts: end_epoch {self.end_epoch:g}, "
                f"start_epoch {self.start_epoch:g}"
            )


@dataclass(frozen=True)
class BetaTcConfig(ElboConfig):
    """Weights of the KL's three parts: `alpha` of the mutual information of image and code, `beta`
    of the total correlation, `gamma` of the dimensions' own KL."""

    alpha: NonNegative = 1.0
    beta: NonNegative = 6.0
    gamma: NonNegative = 1.0
