"""Options of `reconstruction`."""

from dataclasses import dataclass
from typing import Literal

from latentforge import Positive


@dataclass(frozen=True)
class ReconstructionConfig:
    """`sigma` is the standard deviation of the gaussian `likelihood`, or its initial value if
    `learn_sigma` makes it a trainable parameter."""

    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    sigma: Positive = 1.0
    learn_sigma: bool = False

    def __post_init__(self) -> None:
        if self.likelihood == "bernoulli" and (self.learn_sigma or self.sigma != 1.0):
            raise ValueError("sigma and learn_sigma need likelihood = 'gaussian'")
