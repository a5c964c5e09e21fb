"""Options of latent map."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from latentforge import Size


@dataclass(frozen=True)
class LatentMapConfig:
    """`method` "auto" shows codes of one or two dimensions directly and longer ones by t-SNE, in
    which `perplexity` is the effective number of neighbours of a code. At most `n` images of the
    `split` are shown, selected at random. In the metrics, `k` neighbours vote."""

    method: Literal["auto", "pca", "tsne", "pacmap"] = "auto"
    n: Size = 10_000
    k: Size = 10
    perplexity: Annotated[float, Ge(1)] = 30.0
    split: str = "test"
