"""Options of the latent probes."""

from dataclasses import dataclass

from latentforge import Size


@dataclass(frozen=True)
class KnnConfig:
    """`k` is the number of neighbours that vote."""

    k: Size = 10
