"""Options of latent probes."""

from dataclasses import dataclass

from latentforge import Size


@dataclass(frozen=True)
class KnnConfig:
    """`k` neighbours vote."""

    k: Size = 10
