"""Options of `elbo`, `beta-elbo`, `beta-tc` and `iwae`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le

from latentforge import NonNegative, Size
from latentforge_plugins.reconstruction.config import ReconstructionConfig


@dataclass(frozen=True)
class ElboConfig(ReconstructionConfig):
    """The options of the likelihood, which are the same as for `reconstruction`."""


@dataclass(frozen=True)
class BetaElboConfig(ElboConfig):
    """`beta` is the weight of the KL. With the linear `schedule` it increases from 0 between
    `start_epoch` and `end_epoch`. With the cyclic schedule this interval contains `cycles` equal
    cycles; in each cycle, beta increases from 0 during the fraction `ramp` of the cycle and is then
    constant. `start_epoch` and `end_epoch` may be fractional.

    A `capacity` C > 0, in nats, replaces the KL with |KL - C|; C increases from 0 during
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
    """Weights of the three parts of the KL: `alpha` for the mutual information of image and code,
    `beta` for the total correlation, `gamma` for the dimension-wise KL."""

    alpha: NonNegative = 1.0
    beta: NonNegative = 6.0
    gamma: NonNegative = 1.0


@dataclass(frozen=True)
class IwaeConfig(ElboConfig):
    """`samples` is K, the number of samples of z per image. The other options are those of the
    likelihood, which are the same as for `reconstruction`."""

    samples: Size = 50
