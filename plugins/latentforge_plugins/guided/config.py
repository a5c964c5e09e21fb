"""Options of `guided`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Le

from latentforge import Count, NonNegative, Positive, Size


@dataclass(frozen=True)
class GuidedConfig:
    """Each request uses up to `restarts` starts, one after another, until it has `solutions`
    solutions; the one with the highest score is kept. With `start` data, starts are codes of random
    training images: of class number `start_class`, or, if it is not set, of other classes than the
    requested one, unless `any_class` is set. With prior, starts are samples from the prior; with
    wide, they are samples from a normal distribution with standard deviation 10.

    From each start, the search makes up to `steps` steps with an `optimizer` of torch.optim. `lr`,
    the annealed `noise` and `jitter` are in units of the spread of the codes, or absolute if `unit`
    is one. `prior`, weighted by `prior_weight`, keeps codes close to the training codes: mixture
    consists of `components` Gaussians fitted to the training codes; model is the model's prior;
    gaussian is N(0, I) if that is the model's prior, and otherwise a Gaussian fitted to the
    training codes. A satisfied request makes `settle` more steps away from the boundary of the
    solutions; each of these steps uses the gradient at a random offset of size `jitter`. `sample`
    Langevin steps from each solution then sample codes of the requested class, so that the results
    differ from each other as images do. For an open-ended objective such as inpaint, each result is
    then the mean image of chains of that many steps, which has a smaller squared error than the
    most probable image. Both need a mixture or the model's prior. By default there are 100 steps
    for classes, a mixture and more than two latent dimensions, otherwise none. The first `shown`
    requests are drawn. An animation shows the longest path among these requests, or the path of the
    request with number `film`.
    """

    start: Literal["data", "prior", "wide"] = "data"
    start_class: Count | None = None
    any_class: bool = False
    restarts: Size = 16
    steps: Size = 60
    optimizer: str = "adam"
    lr: Positive = 0.1
    noise: NonNegative = 0.3
    unit: Literal["codes", "one"] = "codes"
    prior: Literal["mixture", "model", "gaussian", "none"] = "mixture"
    prior_weight: NonNegative = 0.1
    settle: Count = 60
    jitter: NonNegative = 0.1
    solutions: Size = 2
    sample: Count | None = None
    components: Size = 10
    shown: Annotated[Size, Le(20)] = 10
    film: Count | None = None

    def __post_init__(self) -> None:
        if self.any_class and self.start != "data":
            raise ValueError("any_class needs start='data'")
        if self.sample and self.prior not in ("mixture", "model"):
            raise ValueError("sample needs prior='mixture' or prior='model'")
        if self.start_class is not None and (self.any_class or self.start != "data"):
            raise ValueError("start_class needs start='data' and excludes any_class")
        default = type(self).prior_weight  # another value would have no effect
        if self.prior == "none" and self.prior_weight not in (0, default):
            raise ValueError("prior_weight needs a prior")
