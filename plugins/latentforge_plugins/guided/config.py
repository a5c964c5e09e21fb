"""Options of guided."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Le

from latentforge import Count, NonNegative, Positive, Size


@dataclass(frozen=True)
class GuidedConfig:
    """Each request begins at `restarts` starts in turn, until it has so many `solutions`, of which
    the surest is kept. By `start`, `data` are the codes of random training images (of other classes
    than the one asked for, unless `any_class`), `prior` draws from the prior, `wide` from a normal
    distribution of standard deviation 10.

    A start has so many `steps` of `optimizer`, one of torch.optim. Its `lr`, annealed `noise` and
    `jitter` are in units of the codes' spread, or plain with `unit` one. `prior` with its
    `prior_weight` keeps codes where codes lie: a `mixture` of `components` Gaussians fitted on
    them, or the model's own N(0, I), `gaussian` (a fitted one where the model has no prior).
    What meets its objective makes `settle` more steps, away from the edge of what does, each in the
    direction that is up `jitter` away. The first `shown` requests are drawn, and of these the one
    with the longest walk is filmed, or the one of number `film`.
    """

    start: Literal["data", "prior", "wide"] = "data"
    any_class: bool = False
    restarts: Size = 16
    steps: Size = 60
    optimizer: str = "adam"
    lr: Positive = 0.1
    noise: NonNegative = 0.3
    unit: Literal["codes", "one"] = "codes"
    prior: Literal["mixture", "gaussian", "none"] = "mixture"
    prior_weight: NonNegative = 0.1
    settle: Count = 60
    jitter: NonNegative = 0.1
    solutions: Size = 2
    components: Size = 10
    shown: Annotated[Size, Le(20)] = 10
    film: Count | None = None

    def __post_init__(self) -> None:
        if self.any_class and self.start != "data":
            raise ValueError("any_class needs start='data'")
        default = type(self).prior_weight  # another was asked for, and would have no effect
        if self.prior == "none" and self.prior_weight not in (0, default):
            raise ValueError("prior_weight needs a prior")
