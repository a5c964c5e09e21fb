"""Options of `reconstruction`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from latentforge import Positive


@dataclass(frozen=True)
class ReconstructionConfig:
    """`likelihood` is the distribution of a value, whose mean is decoded: bernoulli for values in
    [0, 1], poisson and negative-binomial for counts, gaussian and laplace for all. `sigma` is the
    standard deviation of gaussian, or the scale of laplace; `learn_sigma` makes it a trainable
    parameter. `dispersion` r of negative-binomial gives the variance mean + mean^2 / r. It is
    trainable if `learn_dispersion` is true, with one r for all values or one for each value of an
    example (`dispersion_of`)."""

    likelihood: Literal["bernoulli", "gaussian", "laplace", "poisson", "negative-binomial"] = (
        "bernoulli"
    )
    sigma: Positive = 1.0
    learn_sigma: bool = False
    dispersion: Annotated[float, Ge(1e-8), Le(1e8)] = 1.0
    learn_dispersion: bool = True
    dispersion_of: Literal["all", "value"] = "all"

    def __post_init__(self) -> None:
        has_sigma = self.likelihood in ("gaussian", "laplace")
        if not has_sigma and (self.learn_sigma or self.sigma != 1.0):
            raise ValueError("sigma and learn_sigma need likelihood = 'gaussian' or 'laplace'")
        usual = (self.dispersion, self.learn_dispersion, self.dispersion_of) == (1.0, True, "all")
        if self.likelihood != "negative-binomial" and not usual:
            raise ValueError("options of the dispersion need likelihood = 'negative-binomial'")
