"""`latent-map`: the codes of a split on a plane, coloured by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from latentforge import ExplorerSpec, Size, hookimpl

if TYPE_CHECKING:
    from latentforge.contracts import ExploreContext
    from latentforge.findings import Findings


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


def explore(context: ExploreContext, config: LatentMapConfig) -> Findings:
    from .mapping import latent_map

    return latent_map(context, config)


@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(
        name="latent-map",
        summary="The codes of a split on a plane: as they are, by PCA, t-SNE or PaCMAP",
        explore=explore,
        config=LatentMapConfig,
        needs={"encode"},
    )
