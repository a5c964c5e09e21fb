"""Options of `commitment`."""

from dataclasses import dataclass

from latentforge import NonNegative
from latentforge_plugins.reconstruction.config import ReconstructionConfig


@dataclass(frozen=True)
class CommitmentConfig(ReconstructionConfig):
    """`commitment` weighs the squared distance of the encoder's outputs from their entries (beta in
    the paper)."""

    commitment: NonNegative = 0.25
