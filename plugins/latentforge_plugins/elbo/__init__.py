"""The losses of variational autoencoders: `elbo`, `beta-elbo` and `beta-tc`."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Le

from latentforge import DataSpec, LossSpec, NonNegative, Size, hookimpl
from latentforge_plugins.reconstruction import ReconstructionConfig
from latentforge_plugins.reconstruction import needs as needs_of_likelihood

if TYPE_CHECKING:
    from torch import nn


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


def needs(config: ElboConfig) -> Set[str]:
    return {*needs_of_likelihood(config), "kl"}


def needs_densities(config: BetaTcConfig) -> Set[str]:
    return {*needs(config), "log_prob", "diagonal_gaussian"}


def build_elbo(config: ElboConfig, data: DataSpec) -> nn.Module:
    from .loss import Elbo

    return Elbo(config)


def build_beta_elbo(config: BetaElboConfig, data: DataSpec) -> nn.Module:
    from .loss import BetaElbo

    return BetaElbo(config)


def build_beta_tc(config: BetaTcConfig, data: DataSpec) -> nn.Module:
    from .total_correlation import BetaTc

    return BetaTc(config)


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="elbo",
        summary="-ELBO in nats per image: -log p(x|z) + KL, one sample of z",
        build=build_elbo,
        config=ElboConfig,
        needs=needs,
    )
    yield LossSpec(
        name="beta-elbo",
        summary="The KL weighed by beta: constant, warmed up, cyclic, or held at a capacity",
        build=build_beta_elbo,
        config=BetaElboConfig,
        needs=needs,
    )
    yield LossSpec(
        name="beta-tc",
        summary="The KL in three parts, the total correlation weighed by beta",
        build=build_beta_tc,
        config=BetaTcConfig,
        needs=needs_densities,
    )
