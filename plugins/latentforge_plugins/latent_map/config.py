"""Options of `latent-map`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from latentforge import FactorName, Size


@dataclass(frozen=True)
class LatentMapConfig:
    """The `method` auto shows codes of one or two dimensions directly and projects longer codes by
    t-SNE. `perplexity` is the effective number of neighbours of a code in t-SNE. At most `n` images
    of the `split` are shown, selected at random. The metrics use the `k` nearest neighbours.
    `colour` is the factor by which the points are coloured: the class, if there are labels, or
    another one. A numeric factor has a continuous scale."""

    method: Literal["auto", "pca", "tsne", "pacmap"] = "auto"
    n: Size = 10_000
    k: Size = 10
    perplexity: Annotated[float, Ge(1)] = 30.0
    split: str = "test"
    colour: FactorName | None = None
