"""Options of `iwae`."""

from dataclasses import dataclass

from latentforge import Size
from latentforge_plugins.reconstruction.config import ReconstructionConfig


@dataclass(frozen=True)
class IwaeConfig(ReconstructionConfig):
    """`samples` is K, the number of samples of z per image. The other options are those of the
    likelihood, which are the same as for `reconstruction`."""

    samples: Size = 50
