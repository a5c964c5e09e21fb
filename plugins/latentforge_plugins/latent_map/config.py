"""Options of latent map."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from latentforge import Size


@dataclass(frozen=True)
class LatentMapConfig:
    """`method` auto shows two dimensions as they are, and more of them by t-SNE, whose `perplexity`
    says how many neighbours a code has. `n` images at the most, drawn from the `split`. In the
    figures `k` neighbours vote."""

    method: Literal["auto", "pca", "tsne", "pacmap"] = "auto"
    n: Size = 10_000
    k: Size = 10
    perplexity: Annotated[float, Ge(1)] = 30.0
    split: str = "test"
