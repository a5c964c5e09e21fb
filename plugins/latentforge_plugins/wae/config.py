"""Options of `wae`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from latentforge import NonNegative, Positive
from latentforge_plugins.reconstruction.config import ReconstructionConfig


@dataclass(frozen=True)
class WaeConfig(ReconstructionConfig):
    """`weight` multiplies the squared MMD between codes and samples of the prior. Its kernel is the
    sum of inverse multiquadrics of `scales`, in units of the expected squared distance of two
    samples of N(0, I). The other options are those of the likelihood, which are the same as for
    `reconstruction`."""

    weight: NonNegative = 100.0
    scales: Annotated[tuple[Positive, ...], MinLen(1)] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
